"""Averaging of parameters, block by block: inside clusters, or partly over all clients.

A client's version of a block is its own copy, or the server's where the server runs that block
for it. Pure functions on states.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from huscf_flwr.nets import State


def weighted_average(states: Sequence[State], weights: Sequence[float]) -> State:
    """Average of states with equal names and shapes, summed in the order given.

    Floating-point values (parameters, running mean and variance) are averaged in float64; integers
    (`num_batches_tracked`) become the maximum and stay integers.
    """
    if len(states) == 1:
        return dict(states[0])
    return {name: _average([state[name] for state in states], weights) for name in states[0]}


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
) -> dict[int, State]:
    """Average all blocks inside clusters.

    Parameters
    ----------
    nets: the whole net of each client: its own blocks, and those of the server it trained with.
    clusters: members of each cluster.
    weights: of each client inside its cluster.

    Returns
    -------
    The whole net of every cluster.
    """
    models = {
        cluster: weighted_average([nets[k] for k in members], [weights[k] for k in members])
        for cluster, members in clusters.items()
    }
    return {cluster: dict(sorted(model.items())) for cluster, model in models.items()}


def aggregate_shared(
    server: State,
    clients: Mapping[int, State],
    clusters: Mapping[int, Sequence[int]],
    cluster_weights: Mapping[int, float],
    global_weights: Mapping[int, float],
) -> tuple[State, dict[int, State]]:
    """Average heads and tails inside clusters, and the server's blocks over all clients.

    Parameters
    ----------
    server: the server's blocks.
    clients: each client's own blocks.
    clusters: members of each cluster.
    cluster_weights, global_weights: weight of each client inside its cluster, and over all.

    Returns
    -------
    The server's new blocks, and for every cluster the whole net: the cluster's average of each
    block that a member holds, the server's new version of the others.
    """
    versions = {k: {**server, **clients[k]} for k in sorted(clients)}
    everyone = weighted_average(list(versions.values()), [global_weights[k] for k in versions])
    new_server = {name: everyone[name] for name in server}
    models = {}
    for cluster, members in clusters.items():
        average = weighted_average(
            [versions[k] for k in members], [cluster_weights[k] for k in members]
        )
        held = set().union(*(clients[k].keys() for k in members))
        models[cluster] = {
            name: average[name] if name in held else new_server[name] for name in sorted(average)
        }
    return new_server, models
