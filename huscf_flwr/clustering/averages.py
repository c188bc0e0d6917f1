"""Averaging of parameters, block by block: inside clusters, or partly over all clients.

A client's version of a block is its own copy, or the server's where the server runs that block
for it. Pure functions on states.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from huscf_flwr.nets import State

Average = Callable[[Sequence[State], Sequence[float]], State]
"""Of states with equal names and shapes, by weights of sum 1."""

_TRIMMED_FROM = 3


def weighted_average(states: Sequence[State], weights: Sequence[float]) -> State:
    """Average of states with equal names and shapes, summed in the order given.

    Floating-point values (parameters, running mean and variance) are averaged in float64; integers
    (`num_batches_tracked`) become the maximum and stay integers.
    """
    if len(states) == 1:
        return dict(states[0])
    return _by_name(states, weights, _average)


def trimmed_average(states: Sequence[State], weights: Sequence[float]) -> State:
    """As `weighted_average`, without the largest and the smallest of each value's versions.

    Of fewer than three states it is the weighted average.
    """
    if len(states) < _TRIMMED_FROM:
        return weighted_average(states, weights)
    return _by_name(states, weights, _trimmed)


def _by_name(
    states: Sequence[State],
    weights: Sequence[float],
    average: Callable[[list[Tensor], Sequence[float]], Tensor],
) -> State:
    found: State = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        # Where all have the server's version, there is nothing to average.
        same = all(value is first for value in values)
        found[name] = first if same else average(values, weights)
    return found


def _trimmed(values: list[Tensor], weights: Sequence[float]) -> Tensor:
    if not values[0].is_floating_point():
        return _average(values, weights)
    versions = torch.stack(values).double()
    shares = torch.tensor(weights, dtype=torch.float64).reshape(-1, *[1] * values[0].dim())
    order = versions.argsort(dim=0)
    kept = shares.expand_as(versions).gather(0, order)[1:-1]
    total = (versions.gather(0, order)[1:-1] * kept).sum(dim=0)
    return (total / kept.sum(dim=0)).to(values[0].dtype)


def _average(values: list[Tensor], weights: Sequence[float]) -> Tensor:
    if not values[0].is_floating_point():
        return torch.stack(values).amax(dim=0)
    total = torch.zeros_like(values[0], dtype=torch.float64)
    for value, weight in zip(values, weights, strict=True):
        total += weight * value.double()
    return total.to(values[0].dtype)


def aggregate_apart(
    nets: Mapping[int, State],
    clusters: Mapping[int, Sequence[int]],
    weights: Mapping[int, float],
    average: Average = weighted_average,
) -> dict[int, State]:
    """Average all blocks inside clusters.

    Parameters
    ----------
    nets: the whole net of each client: its own blocks, and those of the server it trained with.
    clusters: members of each cluster.
    weights: of each client inside its cluster.
    average: how.

    Returns
    -------
    The whole net of every cluster.
    """
    models = {
        cluster: average([nets[k] for k in members], [weights[k] for k in members])
        for cluster, members in clusters.items()
    }
    return {cluster: dict(sorted(model.items())) for cluster, model in models.items()}


def aggregate_shared(
    server: State,
    clients: Mapping[int, State],
    clusters: Mapping[int, Sequence[int]],
    cluster_weights: Mapping[int, float],
    global_weights: Mapping[int, float],
    average: Average = weighted_average,
) -> tuple[State, dict[int, State]]:
    """Average heads and tails inside clusters, and the server's blocks over all clients.

    Parameters
    ----------
    server: the server's blocks.
    clients: each client's own blocks.
    clusters: members of each cluster.
    cluster_weights, global_weights: weight of each client inside its cluster, and over all.
    average: how.

    Returns
    -------
    The server's new blocks, and for every cluster the whole net: the cluster's average of each
    block that a member holds, the server's new version of the others.
    """
    versions = {k: {**server, **clients[k]} for k in sorted(clients)}

    def averaged(
        names: Collection[str], members: Iterable[int], shares: Mapping[int, float]
    ) -> State:
        own = [{name: versions[k][name] for name in names} for k in members]
        return average(own, [shares[k] for k in members])

    new_server = averaged(server, versions, global_weights)
    models = {}
    for cluster, members in clusters.items():
        held = set().union(*(clients[k].keys() for k in members))
        inside = averaged(held, members, cluster_weights)
        models[cluster] = dict(sorted({**new_server, **inside}.items()))
    return new_server, models
