"""Looking for the cuts with which an iteration takes the least time.

Every group of equal devices gets one cut. That loses nothing: if two devices of a group held
different numbers of blocks at one end, both could hold the larger one. The pass waits for the one
that holds it anyway, and the server has less to do, so nothing ends later. By the same argument a
fastest plan is among those in which every device holds as many blocks as it can without exceeding
common *deadlines*: when its activations have to be at the server, and how long it may take after
it. The two nets take turns in an iteration, so the cuts of each are searched on their own.
"""

import itertools
from typing import NamedTuple

import numpy as np

from huscf_flwr.errors import UserError
from huscf_flwr.nets import NetShapes
from huscf_flwr.planning.costs import BlockCosts, NetCosts
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.latency import backward_table, forward_table, net_seconds
from huscf_flwr.split.cuts import end_limits

SEARCHES = ("auto", "genetic", "exhaustive")
MAX_PLANS = 2**22
"""The most plans of one net that `exhaustive` tries: eleven groups with four choices each."""

_CHUNK = 2**16
_TOURNAMENT = 5
_CROSSOVER = 0.7
_MUTATION = 0.01
_PATIENCE = 30  # generations without a better plan

Limits = tuple[int, int]
"""The most blocks of a net that a device may hold at the head, and at the tail."""


def search_cuts(
    costs: NetCosts,
    shapes: NetShapes,
    fleet: Fleet,
    *,
    search: str = "auto",
    seed: int = 0,
) -> tuple[np.ndarray, str]:
    """The best cuts found for a fleet, and by which search.

    Parameters
    ----------
    costs, shapes: of the net.
    fleet: G groups of equal devices.
    search: `exhaustive` returns the fastest plan there is, whether or not devices of a group are
        treated alike; `genetic` one that is at least as fast as every common cut for all;
        `auto` is exhaustive where that means at most `MAX_PLANS`.
    seed: of the genetic search.

    Returns
    -------
    (G, 4) gen_head, gen_tail, disc_head, disc_tail of each group; and the search's name.

    Raises
    ------
    UserError: `exhaustive` with too many groups, or no such search.
    """
    if search not in SEARCHES:
        raise UserError(f'search "{search}": must be one of {", ".join(SEARCHES)}')
    gen_head, gen_tail, disc_head, disc_tail = end_limits(shapes)
    nets: list[tuple[BlockCosts, Limits]] = [
        (costs.gen, (gen_head, gen_tail)),
        (costs.disc, (disc_head, disc_tail)),
    ]
    groups = len(fleet.profiles)
    choices = max(head * tail for _, (head, tail) in nets)
    few = groups * np.log2(choices) <= np.log2(MAX_PLANS)
    if search == "exhaustive" and not few:
        raise UserError(
            f"exhaustive: {groups} groups of equal devices with {choices} choices each make more "
            f"than {MAX_PLANS} plans: use genetic"
        )
    if search == "exhaustive" or (search == "auto" and few):
        best = [exhaustive(net, limits, fleet) for net, limits in nets]
        return np.concatenate(best, axis=1), "exhaustive"
    rng = np.random.default_rng(seed)
    best = [genetic(net, limits, fleet, rng) for net, limits in nets]
    return np.concatenate(best, axis=1), "genetic"


def exhaustive(costs: BlockCosts, limits: Limits, fleet: Fleet) -> np.ndarray:
    """The ends (G, 2) with the least seconds of all there are."""
    choices = np.array(
        list(itertools.product(*(range(1, limit + 1) for limit in limits))), dtype=np.int8
    )
    best, least = choices, np.inf
    plans = itertools.product(range(len(choices)), repeat=len(fleet.profiles))
    while chunk := list(itertools.islice(plans, _CHUNK)):
        ends = choices[np.array(chunk)]
        seconds = net_seconds(costs, fleet, ends)
        index = int(seconds.argmin())
        if seconds[index] < least:
            best, least = ends[index], float(seconds[index])
    return best


def genetic(
    costs: BlockCosts,
    limits: Limits,
    fleet: Fleet,
    rng: np.random.Generator,
    population: int = 1000,
    generations: int = 1000,
) -> np.ndarray:
    """The ends (G, 2) with the least seconds that evolved.

    Operators and parameters are those of the paper's algorithm: tournaments of 5, uniform
    crossover with probability 0.7, mutation with probability 0.01 per gene; the best plan stays.
    The rest is not. A gene is a deadline, not the cut of a group: there are as few of them for a
    thousand groups as for seven, and a plan between two good ones is good, too. Evolution begins
    with all common cuts, and ends after so many generations, or earlier when it has converged.
    """
    deadlines = _deadlines(costs, limits, fleet)
    groups = len(fleet.profiles)
    size = (population, len(deadlines))

    def seconds_of(genes: np.ndarray) -> np.ndarray:
        return net_seconds(costs, fleet, _ends(deadlines, genes, groups))

    genes = rng.integers(groups + 1, size=size)
    common = itertools.product(*(range(1, limit + 1) for limit in limits))
    for row, ends in zip(genes, common, strict=False):
        row[:] = [groups if deadline.held <= ends[deadline.end] else 0 for deadline in deadlines]
    seconds = seconds_of(genes)
    best, unchanged = int(seconds.argmin()), 0
    for _ in range(generations):
        rivals = rng.integers(population, size=(_TOURNAMENT, 2, population))
        winner = seconds[rivals].argmin(axis=0)
        mother, father = np.take_along_axis(rivals, winner[None], axis=0)[0]
        crossed = (rng.random((population, 1)) < _CROSSOVER) & (rng.random(size) < 0.5)
        children = np.where(crossed, genes[father], genes[mother])
        mutated = rng.random(size) < _MUTATION
        children = np.where(mutated, rng.integers(groups + 1, size=size), children)
        children[0], least = genes[best], seconds[best]
        genes, seconds = children, seconds_of(children)
        best = int(seconds.argmin())
        unchanged = 0 if seconds[best] < least else unchanged + 1
        if unchanged == _PATIENCE:
            break
    (found,) = _ends(deadlines, genes[best : best + 1], groups)
    return np.asarray(found)


class _Deadline(NamedTuple):
    """A limit that a device has to keep to hold `held` blocks at an end: 0 the head, 1 the tail.

    `rank` (G,) orders the groups by the time the limit is on; n as a limit admits the first n.
    """

    end: int
    held: int
    rank: np.ndarray


def _deadlines(costs: BlockCosts, limits: Limits, fleet: Fleet) -> list[_Deadline]:
    forward, backward = forward_table(costs, fleet), backward_table(costs, fleet)
    found = []
    for end, (begins, ends) in enumerate(((forward, backward), (backward, forward))):
        for held in range(2, limits[end] + 1):
            until_there = begins.compute_s[held] + begins.send_s[held]
            from_there = ends.return_s[held] + ends.complete_s[held]
            for seconds in (until_there, from_there):
                rank = np.argsort(np.argsort(seconds, kind="stable"))
                found.append(_Deadline(end, held, rank))
    return found


def _ends(deadlines: list[_Deadline], genes: np.ndarray, groups: int) -> np.ndarray:
    """(P, G, 2) the most blocks at each end with which a group keeps the deadlines `genes`."""
    ends = np.ones((len(genes), groups, 2), dtype=np.int8)
    pairs = zip(deadlines, genes.T, strict=True)
    for (end, held), both in itertools.groupby(pairs, key=lambda pair: pair[0][:2]):
        kept = np.logical_and.reduce([deadline.rank < n[:, None] for deadline, n in both])
        ends[..., end][kept] = held
    return ends
