"""What the methods return that a strategy may override, checked: all of them, and at this place.

A wrong result is a mistake in code that runs on the server. It ends the run with a line that names
the class, the method, what it returned, and what that must be.
"""

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from textwrap import shorten
from typing import Any

import torch
from flwr.common import Scalar

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.defences.guarded import Known
from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, GEN, State, select_blocks, whole_net
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.split.cuts import Cut
from strategies.expected import (
    Checkable,
    a_config,
    a_dict,
    a_finite_number,
    a_state_like,
    a_whole_number,
    by_client,
    divergences_of,
    numbers_of,
    numbers_only,
    weights_of,
    whole_nets,
)
from strategies.failures import StrategyError
from strategies.updates import Combined, Update

Check = Callable[..., Any]
"""Of a method: takes the strategy, what it returned, and its arguments; gives what callers get.

Raises ValueError with what is wrong, and what must be.
"""

_SUM = 1e-6  # by which weights may miss 1


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


# Methods, in the order of docs/extending.md


def assign(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> dict[int, int]:
    found = by_client(returned, numbers_of(updates), "cluster")
    return {
        number: a_whole_number(c, f"the cluster of client {number}") for number, c in found.items()
    }


def weigh(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> tuple[dict[int, float], dict[int, float]]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError("must be a pair of dicts by client number: weights, and divergences")
    weights = weights_of(returned[0], numbers_of(updates))
    if abs(sum(weights.values()) - 1) > _SUM:
        raise ValueError(f"weights must add up to 1, not to {sum(weights.values()):g}")
    return weights, divergences_of(returned[1], numbers_of(updates))


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
    models = whole_nets(strategy, returned[1])
    if models.keys() != groups.keys():
        raise ValueError(f"models must be of the clusters {', '.join(map(str, groups))}")
    server = strategy.server  # type: ignore[attr-defined]
    keys = {server.key(cluster) for cluster in groups}
    servers = {
        a_whole_number(k, "a key"): v for k, v in a_dict(returned[0], "server's blocks").items()
    }
    if servers.keys() != keys:
        raise ValueError(f"the server's blocks must be of the keys {', '.join(map(str, keys))}")
    like = server.of(min(strategy.models)).state()
    for key, state in servers.items():
        what = f"the server's blocks {key}"
        own = {n: v for n, v in a_dict(state, f"tensors by name ({what})").items() if n in like}
        numbers_only(strategy, a_state_like(own, like, what), what)
    return servers, models


def combine(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> Combined:
    if not isinstance(returned, Combined):
        raise ValueError("must be a Combined")
    clients = numbers_of(updates)
    models = whole_nets(strategy, returned.models)
    assignment = assign(strategy, returned.assignment, server_round, updates)
    if without := set(assignment.values()) - models.keys():
        raise ValueError(f"models must have a net of cluster {min(without)}, which has clients")
    return replace(
        returned,
        models=models,
        assignment=assignment,
        weights=weights_of(returned.weights, clients),
        klds=divergences_of(returned.klds, clients),
    )


def choose_cuts(
    strategy: Checkable, returned: object, clients: list[ClientInfo]
) -> dict[int, Cut | None]:
    found = by_client(returned, [info.number for info in clients], "cut")
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
    found = a_dict(returned, f'indices of blocks, by "{GEN}" and "{DISC}"')
    allowed = whole_net(strategy.shapes)
    if found.keys() != allowed.keys():
        raise ValueError(f'must have the keys "{GEN}" and "{DISC}"')
    if not all(isinstance(indices, Iterable) for indices in found.values()):
        raise ValueError("must have indices for each net, as in (0, 4)")
    blocks = {net: tuple(indices) for net, indices in found.items()}
    for net, indices in blocks.items():
        if not set(indices) <= set(allowed[net]) or len(set(indices)) < len(indices):
            raise ValueError(f"{net} must be different indices from 0 to {len(allowed[net]) - 1}")
    return blocks


def begins_with(strategy: Checkable, returned: object, info: ClientInfo) -> State:
    due = {name: value for name, value in strategy.due(info).items() if "." in name}
    what = f"what client {info.number} begins with"
    found = a_state_like(returned, due, what)
    known = set(map(id, strategy.model_of(strategy.cluster_of(info)).values()))
    # Those of the models have been looked at; of a thousand clients, it would take a second.
    numbers_only(strategy, {n: v for n, v in found.items() if id(v) not in known}, what)
    return found


def also_due(strategy: Checkable, returned: object) -> State:
    found = dict(a_dict(returned, "tensors by name"))
    for name, value in found.items():
        if str(name).startswith((f"{GEN}.", f"{DISC}.")) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name!r} must be a tensor, and its name none of a block")
    return found


def initial_cluster(strategy: Checkable, returned: object, info: ClientInfo) -> int:
    return a_whole_number(returned, "a cluster")


def generator_of(strategy: Checkable, returned: object, info: ClientInfo, cluster: int) -> State:
    generator = {GEN: range(len(strategy.shapes.gen))}
    like = select_blocks(next(iter(strategy.models.values())), generator)
    return a_state_like(returned, like, f"the generator of client {info.number}")


def question(strategy: Checkable, returned: object) -> dict[str, Scalar]:
    return a_config(returned, "what clients are told")


def open_round(
    strategy: Checkable,
    returned: object,
    server_round: int,
    clients: list[ClientInfo],
    iterations: int,
) -> dict[int, dict[str, Scalar]]:
    found = a_dict(returned, "what each client is told, by number")
    if not set(found) <= {info.number for info in clients}:
        raise ValueError("must be of clients of this round")
    return {
        number: a_config(told, f"what client {number} is told") for number, told in found.items()
    }


def iteration_seconds(strategy: Checkable, returned: object, fleet: Fleet) -> float:
    if a_finite_number(returned, "the time of an iteration") <= 0:
        raise ValueError("must be above 0")
    return a_finite_number(returned, "the time of an iteration")


def summary(strategy: Checkable, returned: object) -> dict[str, Any]:
    found = dict(a_dict(returned, "what summary.json gets"))
    try:
        json.dumps(found)
    except TypeError as error:
        raise ValueError(f"must be what JSON knows: {error}") from None
    return found


def checkpoint(strategy: Checkable, returned: object, server_round: int) -> Checkpoint:
    if not isinstance(returned, Checkpoint):
        raise ValueError("must be a Checkpoint")
    return returned


def server_half(strategy: Checkable, returned: object, info: ClientInfo) -> Any:
    if lacking := [n for n in ("dtype", "exchanges", "iteration") if not hasattr(returned, n)]:
        raise ValueError(f"must be a ServerHalf, which has {lacking[0]}")
    return returned


def told(strategy: Checkable, returned: object, info: ClientInfo) -> dict[str, Scalar]:
    return a_config(returned, "what the client is told")


def largest_frame(strategy: Checkable, returned: object) -> int:
    return a_whole_number(returned, "the bytes of a frame", at_least=1)


def known(strategy: Checkable, returned: object, clients: list[ClientInfo]) -> dict[int, Known]:
    found = a_dict(returned, "Known by client number")
    if found and set(found) != {info.number for info in clients}:
        raise ValueError("must be of all of these clients, or of nobody")
    if not all(isinstance(value, Known) for value in found.values()):
        raise ValueError("each must be a Known")
    return dict(found)


def batches(strategy: Checkable, returned: object, clients: int) -> int:
    return a_whole_number(returned, "the number of batches", at_least=1)


def discriminator(
    strategy: Checkable, returned: object, server_round: int, updates: list[Update]
) -> State:
    whole = {DISC: range(len(strategy.shapes.disc))}
    like = select_blocks(next(iter(strategy.models.values())), whole)
    return numbers_only(strategy, a_state_like(returned, like, "the discriminator"), "it")


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
        checkpoint,
        server_half,
        told,
        largest_frame,
        known,
        batches,
        discriminator,
    )
}
"""By method."""
