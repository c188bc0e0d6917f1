"""What clients answer, checked: nothing unchecked gets past this module.

Whatever is wrong with an answer, the check raises `ValueError` with a message that fits behind the
client's name, so that the caller can leave that client out and go on.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flwr.common import EvaluateRes, FitRes, Scalar

from huscf_flwr.evaluation.scores import CHEAP_SCORES, REAL
from huscf_flwr.nets import State, from_arrays
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.npy import array_like
from huscf_flwr.planning.devices import DEVICE_KEYS
from huscf_flwr.privacy.own_audit import Seen
from huscf_flwr.report.records import ClientScores
from huscf_flwr.tensors import check_values

_METRICS = (
    "generator-loss",
    "discriminator-loss",
    "peak-memory-mb",
    "startup-seconds",
    "training-seconds",
)
_SCORES = {*CHEAP_SCORES, *(name + REAL for name in CHEAP_SCORES)}
_UTILITY = {"accuracy", "precision", "recall", "f1", "fpr"}


@dataclass(frozen=True)
class Properties:
    """Who a client says it is.

    Attributes
    ----------
    size: training images, at least 2.
    domain: one of the run's, or empty where the data is the node's own.
    part: its partition id, and the number of partitions; None where the node has none.
    device: what it says of its device, by `planning.devices.DEVICE_KEYS`; the planner checks it.
    """

    size: int
    domain: str
    part: tuple[int, int] | None
    device: Mapping[str, Scalar]


@dataclass(frozen=True)
class Trained:
    """What a client returned from a round.

    Attributes
    ----------
    state: its own blocks.
    also: what else was due, by names without a dot.
    losses: means over the round.
    peak_memory_mb: of its process.
    startup_s, training_s: seconds that its process took to start for this round, if one did, and
        that it trained with a server elsewhere.
    seen: what it found of what it sends, in a round with an audit.
    """

    state: State
    also: State
    losses: Losses
    peak_memory_mb: float
    startup_s: float
    training_s: float
    seen: Seen | None


def checked_properties(properties: Mapping[str, Scalar], domains: Collection[str]) -> Properties:
    """What a client answered when it was asked who it is; `domains` are the names of the run's.

    Raises
    ------
    ValueError: something is missing, or cannot be; or it is the client's own word that it cannot
        train.
    """
    if "error" in properties:
        raise ValueError(str(properties["error"]))
    partition = _whole(properties, "partition", at_least=-1)
    partitions = _whole(properties, "partitions", at_least=-1)
    if partition >= 0 and partition >= partitions:
        raise ValueError(f"partition={partition} must be below partitions={partitions}")
    domain = properties.get("domain")
    if domain != "" and domain not in domains:
        raise ValueError(
            f"domain={domain!r} must be one of {', '.join(sorted(domains))}, or empty"
        )
    if domain and partition < 0:
        raise ValueError(f"domain={domain!r} is dealt to partitions, but partition={partition}")
    return Properties(
        _whole(properties, "size", at_least=2),
        str(domain),
        (partition, partitions) if partition >= 0 else None,
        {key: properties[key] for key in DEVICE_KEYS if key in properties},
    )


def checked_update(result: FitRes, expected: State) -> Trained:
    """What a client returned from a round.

    `expected` are the names, shapes and dtypes that are due: blocks, and what else there is.

    Raises
    ------
    ValueError: the parameters cannot be read or do not fit, or a number is missing, not finite or,
        among the parameters, too large.
    """
    try:
        due = [expected[name] for name in sorted(expected)]
        pairs = zip(due, result.parameters.tensors, strict=True)
        state = from_arrays(expected, [array_like(*pair) for pair in pairs])
    except Exception as error:  # the readers of arrays raise whatever broken bytes lead them to
        raise ValueError(
            f"parameters that are not the {len(expected)} arrays that were due: "
            f"{type(error).__name__}: {error}"
        ) from error
    for name, value in state.items():
        like = expected[name]
        if value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)} where "
                f"{like.dtype} {tuple(like.shape)} was due"
            )
        if value.is_floating_point():
            check_values(value, name)
    generator, discriminator, memory, startup_s, training_s = (
        _finite(result.metrics, name) for name in _METRICS
    )
    if startup_s < 0 or training_s < 0:
        raise ValueError("seconds below 0")
    seen = Seen.from_metrics(result.metrics)
    also = {name: state.pop(name) for name in list(state) if "." not in name}
    return Trained(
        state, also, Losses(generator, discriminator), memory, startup_s, training_s, seen
    )


def checked_scores(client: int, result: EvaluateRes) -> ClientScores:
    """What client number `client` found of its cluster's generator.

    Raises
    ------
    ValueError: a score is missing, unknown or not finite, or it is of no images.
    """
    found = result.metrics
    unknown = found.keys() - _SCORES - _UTILITY - {"missing_classes"}
    if unknown:
        raise ValueError(f"{min(unknown)!r} is not one of the scores")
    names = _SCORES | found.keys() - {"missing_classes"}
    if result.num_examples < 1:
        raise ValueError(f"scores of {result.num_examples} images")
    return ClientScores(
        client,
        result.num_examples,
        _whole(found, "missing_classes", at_least=0),
        {name: _finite(found, name) for name in sorted(names)},
    )


def _whole(values: Mapping[str, Scalar], key: str, *, at_least: int) -> int:
    value = values.get(key)
    if type(value) is not int or value < at_least:
        raise ValueError(f"{key}={value!r} must be a whole number, at least {at_least}")
    return value


def _finite(values: Mapping[str, Scalar], key: str) -> float:
    value = values.get(key)
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{key}={value!r} must be a finite number")
    return float(value)  # type: ignore[arg-type]
