"""What happens when in one training iteration of a plan, as the latency model has it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from huscf_flwr.nets import DISC, GEN
from huscf_flwr.planning.costs import NetCosts
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.latency import backward_table, forward_table, server_times


class Phase(NamedTuple):
    """One pass through one net."""

    name: str
    net: str
    backward: bool


PHASES = (
    Phase("generator forward", GEN, False),
    Phase("discriminator forward", DISC, False),  # fake
    Phase("discriminator forward", DISC, False),  # real
    Phase("discriminator backward", DISC, True),
    Phase("discriminator backward", DISC, True),
    Phase("discriminator forward", DISC, False),  # judging what the generator made
    Phase("discriminator backward", DISC, True),
    Phase("generator backward", GEN, True),
)
"""The phases of an iteration in their order; one begins when the one before has ended."""


@dataclass(frozen=True)
class Span:
    """Something that takes time.

    Attributes
    ----------
    group: whose it is; None for what the server computes.
    where: `device`, `link` or `server`.
    phase: the name of its phase.
    start_s, end_s: seconds since the iteration began.
    """

    group: int | None
    where: str
    phase: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Schedule:
    """An iteration of G groups.

    Attributes
    ----------
    spans: in the order of their phases.
    device_s, link_s: (G,) seconds that a device of each group computes, and sends and receives.
    server_s: (G,) seconds for which the server works on what such a device sent.
    seconds: how long the iteration takes.
    """

    spans: list[Span]
    device_s: np.ndarray
    link_s: np.ndarray
    server_s: np.ndarray
    seconds: float


def schedule(costs: NetCosts, fleet: Fleet, cuts: np.ndarray) -> Schedule:
    """The schedule of one plan: `cuts` is (G, 4)."""
    spans: list[Span] = []
    device_s, link_s, server_s = np.zeros((3, len(cuts)))
    groups = np.arange(len(cuts))
    begin = 0.0
    for phase in PHASES:
        net = costs.gen if phase.net == GEN else costs.disc
        ends = cuts[:, :2] if phase.net == GEN else cuts[:, 2:]
        table = (backward_table if phase.backward else forward_table)(net, fleet)
        first, last = (ends[:, 1], ends[:, 0]) if phase.backward else (ends[:, 0], ends[:, 1])
        (started,), (finished,), (seconds,) = server_times(table, first[None], last[None])
        compute, send = table.compute_s[first, groups], table.send_s[first, groups]
        receive, complete = table.return_s[last, groups], table.complete_s[last, groups]
        left = finished[len(net) - last - 1]
        device_s += compute + complete
        link_s += send + receive
        for group in groups.tolist():
            server = slice(first[group], len(net) - last[group])
            server_s[group] += (finished - started)[server].sum()
            moments = (
                ("device", 0.0, compute[group]),
                ("link", compute[group], send[group]),
                ("link", left[group], receive[group]),
                ("device", left[group] + receive[group], complete[group]),
            )
            spans += [
                Span(group, where, phase.name, begin + start, begin + start + taken)
                for where, start, taken in moments
            ]
        spans += [
            Span(None, "server", phase.name, begin + start, begin + finish)
            for start, finish in zip(started.tolist(), finished.tolist(), strict=True)
            if finish > start
        ]
        begin += float(seconds)
    return Schedule(spans, device_s, link_s, server_s, begin)
