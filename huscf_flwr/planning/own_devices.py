"""A user's own devices, which share its discriminator in Federated Split GANs.

Source: Kortoçi et al.: "Federated Split GANs" (2022), and what their code runs: a discriminator is
cut in three parts; the three fastest devices of a user take them in turn, each as many as it has
room for. Where the code takes another part's size off that room, here it is the placed one's.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from huscf_flwr.planning.costs import BlockCosts
from huscf_flwr.planning.devices import Fleet, OwnDevice, Profile

FEDERATED_SPLIT_PASSES = 2 + 1 / 3
"""Of an iteration: real and generated images, forward and backward, and for the generator one more
product back to the latter's pixels, where a pass takes three."""

_PARTS = 3
_HOP_S = 0.05  # for a batch to get from one of a user's devices to another


def place(sizes: Sequence[int], devices: Sequence[OwnDevice]) -> list[OwnDevice] | None:
    """The device of each part, or None if they do not all find room.

    Parameters
    ----------
    sizes: parameters of the parts, in order.
    devices: a user's; only the fastest, as many as there are parts, are asked.
    """
    placed: list[OwnDevice] = []
    for device in sorted(devices, key=lambda device: device.time_factor)[: len(sizes)]:
        room = device.capacity
        while len(placed) < len(sizes) and sizes[len(placed)] <= room:
            room -= sizes[len(placed)]
            placed.append(device)
    return placed if len(placed) == len(sizes) else None


def user_seconds(costs: BlockCosts, profile: Profile, passes: float) -> float | None:
    """How long a user's devices take for passes of a batch, each forward and backward.

    None if the net finds no room on them. A profile without devices of its own is one device.
    """
    once_s = 2 * profile.overhead_s
    if not profile.devices:
        return passes * (costs.pass_flops / profile.flops_per_s + once_s)
    parts = np.array_split(np.arange(len(costs)), _PARTS)
    placed = place([int(costs.parameters[part].sum()) for part in parts], profile.devices)
    if placed is None:
        return None
    flops = costs.forward_flops + costs.backward_flops
    for part, device in zip(parts, placed, strict=True):
        once_s += float(flops[part].sum()) * device.time_factor / profile.flops_per_s
    hops = sum(one is not other for one, other in itertools.pairwise(placed))
    return passes * (once_s + 2 * hops * _HOP_S)


def users_seconds(costs: BlockCosts, fleet: Fleet, passes: float) -> np.ndarray:
    """(G,) of `user_seconds`, for each group; nan for whom there is no room."""
    found = [user_seconds(costs, profile, passes) for profile in fleet.profiles]
    return np.array([np.nan if seconds is None else seconds for seconds in found])
