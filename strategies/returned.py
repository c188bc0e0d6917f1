"""What the methods return that a strategy may override, checked: all of them, and at this place.

A wrong result is a mistake in code that runs on the server. It ends the run with a line that names
the class, the method, what it returned, and what that must be.
"""

import functools
import inspect
import json
import math
import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from textwrap import shorten
from typing import Any, ClassVar, Protocol, get_args

import torch
from flwr.common import Scalar

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.defences.guarded import Known
from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, GEN, NetShapes, State, select_blocks, whole_net
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.split.cuts import Cut
from strategies.failures import StrategyError
from strategies.updates import Combined, Update

Check = Callable[..., Any]
"""Of a method: takes the strategy, what it returned, and its arguments; gives what callers get.

Raises ValueError with what is wrong, and what must be.
"""

_SUM = 1e-6  # by which weights may miss 1


class Checkable(Protocol):
    """What checks need of a strategy."""

    client_class: ClassVar[type[GANClient]]
    shapes: NetShapes
    models: dict[int, State]

    def due(self, info: ClientInfo) -> State: ...


def check_returns(strategy: Checkable) -> None:
    """Have what these methods return checked from now on, whoever calls them."""
    for name, check in CHECKS.items():
        if hasattr(strategy, name):
            setattr(strategy, name, _checked(strategy, name, check))


def _checked(strategy: Checkable, name: str, check: Check) -> Callable[..., Any]:
    method = getattr(strategy, name)
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        returned = method(*args, **kwargs)
        try:
            return check(strategy, returned, *signature.bind(*args, **kwargs).args)
        except ValueError as error:
            owner = next(kind for kind in type(strategy).__mro__ if name in vars(kind))
            shown = shorten(repr(returned), 120, placeholder=" ...")
            raise StrategyError(f"{owner.__name__}.{name} returned {shown}: {error}") from None

    return call


# Numbers


def _mapping(returned: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(returned, Mapping):
        raise ValueError(f"must be a dict of {what}")
    return returned


def _whole(value: object, what: str, *, at_least: int = 0) -> int:
    if not isinstance(value, numbers.Integral) or value < at_least:
        raise ValueError(f"{what} must be a whole number, at least {at_least}")
    return int(value)


def _finite(value: object, what: str) -> float:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number")
    return float(value)


def _of_clients(returned: object, clients: Collection[int], what: str) -> dict[int, Any]:
    """By number; of all clients, and of no other."""
    found = _mapping(returned, f"{what}s by client number")
    if set(found) != set(clients):
        named = ", ".join(map(str, clients))
        raise ValueError(f"must have a {what} for each of the clients {named}, and no other")
    return {int(number): value for number, value in found.items()}


def _weights(returned: object, clients: Collection[int]) -> dict[int, float]:
    found = {
        number: _finite(value, f"the weight of client {number}")
        for number, value in _of_clients(returned, clients, "weight").items()
    }
    if any(value < 0 for value in found.values()):
        raise ValueError("weights must be at least 0")
    return found


def _divergences(returned: object, clients: Collection[int]) -> dict[int, float]:
    found = _mapping(returned, "divergences by client number")
    if not set(found) <= set(clients):
        raise ValueError(f"divergences must be of the clients {', '.join(map(str, clients))}")
    return {int(k): _finite(v, f"the divergence of client {k}") for k, v in found.items()}


def _numbers_of(updates: Collection[Update]) -> list[int]:
    return [update.info.number for update in updates]


# States


def _state(returned: object, like: State, what: str) -> State:
    """Of the names, shapes and dtypes of another one."""
    found = dict(_mapping(returned, f"tensors by name ({what})"))
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


def _numbers_only(strategy: Checkable, state: State, what: str) -> State:
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


def _models(strategy: Checkable, returned: object) -> dict[int, State]:
    """The whole net of each cluster."""
    like, found = next(iter(strategy.models.values())), dict[int, State]()
    for cluster, state in _mapping(returned, "whole nets by cluster (models)").items():
        what = f"models[{cluster}]"
        checked = _numbers_only(strategy, _state(state, like, what), what)
        found[_whole(cluster, "a cluster")] = checked
    if not found:
        raise ValueError("models must have a net for each cluster")
    return found


# What is told


def _config(returned: object, what: str) -> dict[str, Scalar]:
    found = dict(_mapping(returned, what))
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, get_args(Scalar)):
            raise ValueError(f"{name!r} must be a text, with a text, number, bool or bytes")
    return found


# Methods, in the order of docs/extending.md


def assign(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> dict[int, int]:
    found = _of_clients(returned, _numbers_of(updates), "cluster")
    return {number: _whole(c, f"the cluster of client {number}") for number, c in found.items()}


def weigh(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> tuple[dict[int, float], dict[int, float]]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError("must be a pair of dicts by client number: weights, and divergences")
    weights = _weights(returned[0], _numbers_of(updates))
    if abs(sum(weights.values()) - 1) > _SUM:
        raise ValueError(f"weights must add up to 1, not to {sum(weights.values()):g}")
    return weights, _divergences(returned[1], _numbers_of(updates))


def average(
    strategy: Checkable,
    returned: object,
    updates: list[Update],
    groups: Mapping[int, list[int]],
    cluster_weights: Mapping[int, float],
    global_weights: Mapping[int, float],
) -> tuple[dict[int, State], dict[int, State]]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError("must be a pair of dicts: the server's blocks, and whole nets by cluster")
    models = _models(strategy, returned[1])
    if models.keys() != groups.keys():
        raise ValueError(f"models must be of the clusters {', '.join(map(str, groups))}")
    server = strategy.server  # type: ignore[attr-defined]
    keys = {server.key(cluster) for cluster in groups}
    servers = {_whole(k, "a key"): v for k, v in _mapping(returned[0], "server's blocks").items()}
    if servers.keys() != keys:
        raise ValueError(f"the server's blocks must be of the keys {', '.join(map(str, keys))}")
    like = server.of(min(strategy.models)).state()
    for key, state in servers.items():
        what = f"the server's blocks {key}"
        own = {n: v for n, v in _mapping(state, f"tensors by name ({what})").items() if n in like}
        _numbers_only(strategy, _state(own, like, what), what)
    return servers, models


def combine(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> Combined:
    if not isinstance(returned, Combined):
        raise ValueError("must be a Combined")
    clients = _numbers_of(updates)
    models = _models(strategy, returned.models)
    assignment = assign(strategy, returned.assignment, server_round, updates)
    if without := set(assignment.values()) - models.keys():
        raise ValueError(f"models must have a net of cluster {min(without)}, which has clients")
    return replace(
        returned,
        models=models,
        assignment=assignment,
        weights=_weights(returned.weights, clients),
        klds=_divergences(returned.klds, clients),
    )


def choose_cuts(
    strategy: Checkable, returned: object, clients: list[ClientInfo]
) -> dict[int, Cut | None]:
    found = _of_clients(returned, [info.number for info in clients], "cut")
    splits = issubclass(strategy.client_class, SplitGANClient)
    for number, cut in found.items():
        if not isinstance(cut, Cut) and (splits or cut is not None):
            kinds = "a Cut" if splits else "a Cut, or None for whole nets"
            raise ValueError(f"the cut of client {number} must be {kinds}")
        if cut is not None:
            try:
                cut.check(strategy.shapes)
            except UserError as error:
                raise ValueError(str(error)) from None
    return found


def client_blocks(
    strategy: Checkable, returned: object, info: ClientInfo
) -> dict[str, tuple[int, ...]]:
    found = _mapping(returned, f'indices of blocks, by "{GEN}" and "{DISC}"')
    allowed = whole_net(strategy.shapes)
    if found.keys() != allowed.keys():
        raise ValueError(f'must have the keys "{GEN}" and "{DISC}"')
    blocks = {net: tuple(indices) for net, indices in found.items()}
    for net, indices in blocks.items():
        if not set(indices) <= set(allowed[net]) or len(set(indices)) < len(indices):
            raise ValueError(f"{net} must be different indices from 0 to {len(allowed[net]) - 1}")
    return blocks


def begins_with(strategy: Checkable, returned: object, info: ClientInfo) -> State:
    due = {name: value for name, value in strategy.due(info).items() if "." in name}
    what = f"what client {info.number} begins with"
    return _numbers_only(strategy, _state(returned, due, what), what)


def also_due(strategy: Checkable, returned: object) -> State:
    found = dict(_mapping(returned, "tensors by name"))
    for name, value in found.items():
        if str(name).startswith((f"{GEN}.", f"{DISC}.")) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name!r} must be a tensor, and its name none of a block")
    return found


def initial_cluster(strategy: Checkable, returned: object, info: ClientInfo) -> int:
    return _whole(returned, "a cluster")


def generator_of(strategy: Checkable, returned: object, info: ClientInfo, cluster: int) -> State:
    generator = {GEN: range(len(strategy.shapes.gen))}
    like = select_blocks(next(iter(strategy.models.values())), generator)
    return _state(returned, like, f"the generator of client {info.number}")


def question(strategy: Checkable, returned: object) -> dict[str, Scalar]:
    return _config(returned, "what clients are told")


def open_round(
    strategy: Checkable,
    returned: object,
    server_round: int,
    clients: list[ClientInfo],
    iterations: int,
) -> dict[int, dict[str, Scalar]]:
    found = _mapping(returned, "what each client is told, by number")
    if not set(found) <= {info.number for info in clients}:
        raise ValueError("must be of clients of this round")
    return {
        number: _config(told, f"what client {number} is told") for number, told in found.items()
    }


def iteration_seconds(strategy: Checkable, returned: object, fleet: Fleet) -> float:
    if _finite(returned, "the time of an iteration") <= 0:
        raise ValueError("must be above 0")
    return _finite(returned, "the time of an iteration")


def summary(strategy: Checkable, returned: object) -> dict[str, Any]:
    found = dict(_mapping(returned, "what summary.json gets"))
    try:
        json.dumps(found)
    except TypeError as error:
        raise ValueError(f"must be what JSON knows: {error}") from None
    return found


def server_half(strategy: Checkable, returned: object, info: ClientInfo) -> Any:
    if lacking := [n for n in ("dtype", "exchanges", "iteration") if not hasattr(returned, n)]:
        raise ValueError(f"must be a ServerHalf, which has {lacking[0]}")
    return returned


def told(strategy: Checkable, returned: object, info: ClientInfo) -> dict[str, Scalar]:
    return _config(returned, "what the client is told")


def largest_frame(strategy: Checkable, returned: object) -> int:
    return _whole(returned, "the bytes of a frame", at_least=1)


def known(strategy: Checkable, returned: object, clients: list[ClientInfo]) -> dict[int, Known]:
    found = _mapping(returned, "Known by client number")
    if found and set(found) != {info.number for info in clients}:
        raise ValueError("must be of all of these clients, or of nobody")
    if not all(isinstance(value, Known) for value in found.values()):
        raise ValueError("each must be a Known")
    return dict(found)


def batches(strategy: Checkable, returned: object, clients: int) -> int:
    return _whole(returned, "the number of batches", at_least=1)


def discriminator(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> State:
    whole = {DISC: range(len(strategy.shapes.disc))}
    like = select_blocks(next(iter(strategy.models.values())), whole)
    return _numbers_only(strategy, _state(returned, like, "the discriminator"), "it")


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        assign,
        weigh,
        average,
        combine,
        choose_cuts,
        client_blocks,
        begins_with,
        also_due,
        initial_cluster,
        generator_of,
        question,
        open_round,
        iteration_seconds,
        summary,
        server_half,
        told,
        largest_frame,
        known,
        batches,
        discriminator,
    )
}
"""By method."""
