"""Whether a generator still generates something, as it did before."""

from collections.abc import Mapping

from huscf_flwr.nets import NetSpec, State
from huscf_flwr.nets.generator import Generator

_IMAGES = 32
_LEAST = 0.1
_SEED = 0


def variety(spec: NetSpec, generator: State) -> float:
    """How different its images are: standard deviation over images, mean over pixels; in [0, 1].

    Nan if parameters are not finite. `generator` are all its blocks.
    """
    if not all(bool(v.isfinite().all()) for v in generator.values() if v.is_floating_point()):
        return float("nan")
    images, _ = Generator(spec, generator).sample(_IMAGES, seed=_SEED)
    return float(images.std(dim=0).mean())


def collapsed(before: Mapping[int, float], now: Mapping[int, float]) -> list[int]:
    """The clusters whose generators' variety is gone: not a tenth of what it was, or not a number.

    A cluster that is new is compared with the least of those before.
    """
    least = min(before.values(), default=0.0)
    return [c for c, value in now.items() if not value >= _LEAST * before.get(c, least)]
