"""What checks of a strategy's results are made of; each raises ValueError with what must be."""

import math
import numbers
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, get_args

import torch
from flwr.common import Scalar

from huscf_flwr.clients.base import GANClient
from huscf_flwr.nets import NetShapes, State
from huscf_flwr.report.records import ClientInfo
from strategies.updates import Update


class Checkable(Protocol):
    """What checks need of a strategy."""

    client_class: ClassVar[type[GANClient]]
    shapes: NetShapes
    models: dict[int, State]

    def due(self, info: ClientInfo) -> State: ...
    def model_of(self, cluster: int) -> State: ...
    def cluster_of(self, info: ClientInfo) -> int: ...


# Numbers


def a_dict(returned: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(returned, Mapping):
        raise ValueError(f"must be a dict of {what}")
    return returned


def a_whole_number(value: object, what: str, *, at_least: int = 0) -> int:
    if not isinstance(value, numbers.Integral) or value < at_least:
        raise ValueError(f"{what} must be a whole number, at least {at_least}")
    return int(value)


def a_finite_number(value: object, what: str) -> float:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number")
    return float(value)


def by_client(returned: object, clients: Collection[int], what: str) -> dict[int, Any]:
    """By number; of all clients, and of no other."""
    found = a_dict(returned, f"{what}s by client number")
    if set(found) != set(clients):
        named = ", ".join(map(str, clients))
        raise ValueError(f"must have a {what} for each of the clients {named}, and no other")
    return {int(number): value for number, value in found.items()}


def weights_of(returned: object, clients: Collection[int]) -> dict[int, float]:
    found = {
        number: a_finite_number(value, f"the weight of client {number}")
        for number, value in by_client(returned, clients, "weight").items()
    }
    if any(value < 0 for value in found.values()):
        raise ValueError("weights must be at least 0")
    return found


def divergences_of(returned: object, clients: Collection[int]) -> dict[int, float]:
    found = a_dict(returned, "divergences by client number")
    if not set(found) <= set(clients):
        raise ValueError(f"divergences must be of the clients {', '.join(map(str, clients))}")
    return {int(k): a_finite_number(v, f"the divergence of client {k}") for k, v in found.items()}


def numbers_of(updates: Collection[Update]) -> list[int]:
    return [update.info.number for update in updates]


# States


def a_state_like(returned: object, like: State, what: str) -> State:
    """Of the names, shapes and dtypes of another one."""
    found = dict(a_dict(returned, f"tensors by name ({what})"))
    if found.keys() != like.keys():
        lacking, more = sorted(like.keys() - found.keys()), sorted(found.keys() - like.keys())
        problem = f"lacks {lacking[0]}" if lacking else f"has {more[0]}, which is no part of it"
        raise ValueError(f"{what} {problem}: it must have {len(like)} tensors, as the nets do")
    for name, due in like.items():
        value = found[name]
        if not isinstance(value, torch.Tensor) or value.shape != due.shape:
            raise ValueError(f"{name} of {what} must be a tensor of shape {tuple(due.shape)}")
        if value.dtype != due.dtype:
            raise ValueError(f"{name} of {what} must be of {due.dtype}, not {value.dtype}")
    return found


def numbers_only(strategy: Checkable, state: State, what: str) -> State:
    """The state; where it is not finite, training may have led the server's blocks there.

    Clients' blocks always are: others are not let in.
    """
    if name := _not_finite(state):
        server = getattr(strategy, "server", None)
        if server is None or not any(map(_not_finite, server.checkpoint().values())):
            raise ValueError(f"{name} of {what} must have finite numbers only")
    return state


def _not_finite(state: State) -> str | None:
    return next((name for name, value in state.items() if not value.isfinite().all()), None)


def whole_nets(strategy: Checkable, returned: object) -> dict[int, State]:
    """The whole net of each cluster."""
    like, found = next(iter(strategy.models.values())), dict[int, State]()
    for cluster, state in a_dict(returned, "whole nets by cluster (models)").items():
        what = f"models[{cluster}]"
        checked = numbers_only(strategy, a_state_like(state, like, what), what)
        found[a_whole_number(cluster, "a cluster")] = checked
    if not found:
        raise ValueError("models must have a net for each cluster")
    return found


# What is told


def a_config(returned: object, what: str) -> dict[str, Scalar]:
    found = dict(a_dict(returned, what))
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, get_args(Scalar)):
            raise ValueError(f"{name!r} must be a text, with a text, number, bool or bytes")
    return found
