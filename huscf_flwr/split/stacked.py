"""Heads and tails of several clients with one cut, computed as one."""

import functools
import logging
from collections.abc import Generator, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import NetSpec, initial_state, net_shapes
from huscf_flwr.nets.blocks import FLOAT32
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.stacked import StackedNets
from huscf_flwr.procedure import ClientHalf, Steps, advance
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import exchange_specs
from huscf_flwr.split.heads_and_tails import Ends, HeadsAndTails
from huscf_flwr.tensors import Tensors

log = logging.getLogger(__name__)

_TOLERANCE = 1e-6
"""Relative, of what is float64: the same but for rounding is less than 1e-10."""


class _Kind(NamedTuple):
    """What halves have in common that can be stacked."""

    spec: NetSpec
    cut: Cut
    batch_size: int
    rate: float
    dtype: torch.dtype
    device: torch.device


def stacker_on(device: str) -> "HeadsAndTailsStacker | None":
    """For clients on this device: a processor gains nothing by it."""
    return HeadsAndTailsStacker() if device == "cuda" else None


class HeadsAndTailsStacker:
    """Stacks halves of HuSCF's clients; see `procedure.Stacker`."""

    def kind(self, half: ClientHalf) -> Hashable:
        """Those with one cut are of one kind; None if the net computes other things stacked."""
        if type(half) is not HeadsAndTails:  # whose iteration may be another
            return None
        if half.spec.precision != FLOAT32:  # what stacked blocks compute in is their inputs' dtype
            return None
        if not _can_be_stacked(half.spec, half.cut, half.device):
            return None
        rate = half.optimisers.rate
        return _Kind(half.spec, half.cut, half.batch_size, rate, half.dtype, half.device)

    def stack(self, halves: Sequence[ClientHalf]) -> "StackedHeadsAndTails":
        return StackedHeadsAndTails([half for half in halves if isinstance(half, HeadsAndTails)])


class StackedHeadsAndTails:
    """Such halves; see `procedure.StackedHalf`."""

    def __init__(self, halves: Sequence[HeadsAndTails]) -> None:
        first = halves[0]
        self._nets = StackedNets([half.nets for half in halves])
        self._ends = Ends(*(self._nets.blocks(end) for end in first.ends))
        self._optimisers = {row: half.optimisers for row, half in enumerate(halves)}
        self.device, self.dtype = first.device, first.dtype
        self._loss = first.spec.gan_loss

    def leave(self, row: int) -> None:
        self._optimisers.pop(row, None)

    def iteration(self, batches: Sequence[Batch]) -> Generator[Tensors, Tensors, list[Losses]]:
        """See `HeadsAndTails.iteration`."""
        losses = yield from self._ends.iteration(
            Batch.stacked(batches).to(self.device, self.dtype),
            lambda net: self._nets.step(net, self._optimisers),
            self._loss,
        )
        return [Losses(*own) for own in torch.stack(losses, dim=1).tolist()]


@functools.cache
def _can_be_stacked(spec: NetSpec, cut: Cut, device: torch.device) -> bool:
    """Whether clients with this cut compute the same stacked; the log says if they do not.

    Nets are anybody's: they may draw at random, or do with a tensor's size or values what cannot
    be done for several at once. So an iteration is tried.
    """
    try:
        apart, stacked = (_trial(spec, cut, device, stack=stack) for stack in (False, True))
        pairs = zip(apart, stacked, strict=True)
        same = all(torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE) for a, b in pairs)
        problem = "" if same else "it would compute other values"
    except Exception as error:  # of a net, whatever it is
        problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if problem:
        log.warning(
            'net="%s" cannot be computed for several clients at once, so those with cut %s are '
            "trained one after the other: %s", spec.net, cut, problem,
        )  # fmt: skip
    return not problem


def _trial(spec: NetSpec, cut: Cut, device: torch.device, *, stack: bool) -> list[Tensor]:
    """What two clients send in an iteration, and what they hold after it."""
    size, shapes, dtype = 4, net_shapes(spec), torch.float64
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(2, size, *shape, generator=random, dtype=dtype).to(device)

    labels = torch.arange(2 * size).reshape(2, size) % spec.num_classes
    images = drawn(spec.channels, spec.image_size, spec.image_size)
    latent, swapped = drawn(shapes.latent_size), labels.flip(1)
    batches = [
        Batch(images[row], labels[row], latent[row], swapped[row], swapped[row]) for row in (0, 1)
    ]
    answers = [
        {name: drawn(*shape[1:]) for name, shape in exchange.returned.items()}
        for exchange in exchange_specs(cut, shapes, size)
    ]
    halves = [
        HeadsAndTails(
            spec, shapes, cut, initial_state(spec, seed, dtype),
            learning_rate=1e-3, batch_size=size, device=device,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    if stack:
        steps = StackedHeadsAndTails(halves).iteration(batches)
        found = _sent(steps, answers)
    else:
        each = [
            _sent(half.iteration(own), [{n: t[row] for n, t in a.items()} for a in answers])
            for row, (half, own) in enumerate(zip(halves, batches, strict=True))
        ]
        found = [torch.stack(own) for own in zip(*each, strict=True)]
    held = [value.double() for half in halves for value in half.nets.state_dict().values()]
    return [*found, *held]


def _sent(steps: Steps, answers: Sequence[Tensors]) -> list[Tensor]:
    """What is sent in an iteration that is answered so."""
    found: list[Tensor] = []
    request = advance(steps)
    for answer in answers:
        found += (request or {}).values()
        request = advance(steps, {name: value.clone() for name, value in answer.items()})
    return found
