"""A plan: the cuts of every group of equal devices, and what an iteration with them takes."""

import itertools
import time
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from huscf_flwr.feedback.exchanges import usual_batches
from huscf_flwr.nets import NetShapes, NetSpec, net_shapes
from huscf_flwr.planning.costs import NetCosts, net_costs
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.latency import (
    feedback_seconds,
    iteration_seconds,
    net_seconds,
    passes_seconds,
    unsplit_seconds,
)
from huscf_flwr.planning.own_devices import FEDERATED_SPLIT_PASSES, users_seconds
from huscf_flwr.planning.schedule import Schedule, schedule
from huscf_flwr.planning.search import search_cuts
from huscf_flwr.split.cuts import Cut, end_limits
from huscf_flwr.wire.codings import EXACT, Coding

_MOST_ROWS = 20

_Row = tuple[str, float, Cut, np.ndarray]


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the nets of each group of devices are cut.

    Attributes
    ----------
    fleet: the devices, in groups.
    cuts: the cut of each group.
    costs: of the net that is cut.
    cohort: how many clients share an iteration.
    search: `genetic` or `exhaustive`.
    seconds: how long the search took.
    """

    fleet: Fleet
    cuts: tuple[Cut, ...]
    costs: NetCosts
    cohort: float
    search: str
    seconds: float

    @property
    def latency_s(self) -> float:
        """Seconds that one training iteration of the cohort takes, predicted."""
        return self.predict(self.cohort)

    def predict(self, cohort: float) -> float:
        """Seconds that one training iteration of so many clients, mixed like the fleet, takes."""
        fleet = self.fleet.of_size(cohort)
        return float(iteration_seconds(self.costs, fleet, _array(self.cuts)[None])[0])

    def schedule(self) -> Schedule:
        """What happens when in an iteration."""
        return schedule(self.costs, self.fleet.of_size(self.cohort), _array(self.cuts))

    def as_dict(self) -> dict[str, Any]:
        """What JSON readers get: `latency_s` is of an iteration, `seconds` are the search's."""
        groups = zip(self.fleet.profiles, self.fleet.clients, self.cuts, strict=True)
        return {
            "latency_s": self.latency_s,
            "seconds": self.seconds,
            "search": self.search,
            "groups": [
                {"profile": profile.name, "clients": round(clients), **vars(cut)}
                for profile, clients, cut in groups
            ],
        }

    def times_s(self) -> np.ndarray:
        """(G, 3) seconds of an iteration: on a device, on its link, of the server for it."""
        found = self.schedule()
        return np.stack([found.device_s, found.link_s, found.server_s], axis=1)

    def lines(self) -> list[str]:
        """The plan as a table: a row per group, or per cut where there are many groups."""
        latency_s = self.latency_s
        names = [str(profile) for profile in self.fleet.profiles]
        rows = list(zip(names, self.fleet.clients, self.cuts, self.times_s(), strict=True))
        if len(rows) > _MOST_ROWS:
            rows = [
                self._merged([row for row in rows if row[2] == cut])
                for cut in sorted(set(self.cuts))
            ]
        width = max(len(row[0]) for row in rows)
        lines = [
            f"{'':{width}}           generator  discriminator    seconds of an iteration",
            f"{'devices':{width}}  clients  head tail   head tail    device    link  server"
            " waiting",
        ]
        for name, clients, cut, seconds in rows:
            waiting = max(0.0, latency_s - seconds.sum())
            lines.append(
                f"{name:{width}}  {clients:7.0f}  {cut.gen_head:4} {cut.gen_tail:4}   "
                f"{cut.disc_head:4} {cut.disc_tail:4}  "
                + "".join(f"{value:8.3f}" for value in (*seconds, waiting))
            )
        return lines

    @staticmethod
    def _merged(rows: list[_Row]) -> _Row:
        _, clients, (cut, *_), seconds = zip(*rows, strict=True)
        longest = np.max(seconds, axis=0)
        return f"{len(rows)} groups, longest times", sum(clients), cut, longest


def make_plan(
    spec: NetSpec,
    batch_size: int,
    fleet: Fleet,
    *,
    cohort: float | None = None,
    search: str = "auto",
    seed: int = 0,
    coding: Coding = EXACT,
) -> Plan:
    """Search the cuts for a fleet.

    Parameters
    ----------
    spec, batch_size: what is trained.
    fleet: the devices.
    cohort: how many of the clients share an iteration; all of them unless given.
    search, seed: see `search.search_cuts`.
    coding: how what is exchanged is written.

    Raises
    ------
    UserError: the net cannot be built, or the search is not possible.
    """
    costs, shapes = net_costs(spec, batch_size, coding), net_shapes(spec)
    size = float(fleet.clients.sum()) if cohort is None else cohort
    started = time.monotonic()
    found, used = search_cuts(costs, shapes, fleet.of_size(size), search=search, seed=seed)
    seconds = time.monotonic() - started
    cuts = tuple(Cut(*row) for row in found.tolist())
    return Plan(fleet, cuts, costs, size, used, seconds)


def alternatives(plan: Plan, shapes: NetShapes) -> dict[str, float]:
    """Seconds of an iteration of the same fleet with simpler plans, by what these are."""
    fleet, costs = plan.fleet.of_size(plan.cohort), plan.costs
    limits = end_limits(shapes)

    def alike(cut: Cut) -> float:
        cuts = np.broadcast_to(np.array(astuple(cut)), (1, len(plan.cuts), 4))
        return float(iteration_seconds(costs, fleet, cuts)[0])

    common: list[int] = []
    for (net, _), most in zip(costs.with_passes(), (limits[:2], limits[2:]), strict=True):
        choices = np.array(list(itertools.product(*(range(1, limit + 1) for limit in most))))
        ends = np.broadcast_to(choices[:, None], (len(choices), len(plan.cuts), 2))
        common += choices[net_seconds(net, fleet, ends).argmin()].tolist()
    best = Cut(*common)
    return {
        "everything possible on the clients": alike(Cut(*limits)),
        "as little as possible on the clients": alike(Cut(1, 1, 1, 1)),
        f"the best common cut for all ({best})": alike(best),
        "whole nets on every client (FedGAN, PFL-GAN-style)": unsplit_seconds(costs, fleet),
        "two generators on every client (HFL-GAN-style)": unsplit_seconds(
            costs, fleet, gen=2, disc=5
        ),
        "the generator on the server (MD-GAN)": feedback_seconds(
            costs,
            fleet,
            batches=usual_batches(plan.cohort),
            given=2,
            disc_s=passes_seconds(costs.disc, fleet, 3),
        ),
        "the generator on the server (Federated Split GANs)": feedback_seconds(
            costs,
            fleet,
            batches=1,
            given=1,
            disc_s=users_seconds(costs.disc, fleet, FEDERATED_SPLIT_PASSES),
        ),
    }


def _array(cuts: tuple[Cut, ...]) -> np.ndarray:
    return np.array([astuple(cut) for cut in cuts])
