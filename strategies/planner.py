"""Which cut each client of a run gets: dealt from a list, or planned for the clients' devices."""

import logging
import math
from collections.abc import Callable, Sequence

from huscf_flwr.config import RunConfig
from huscf_flwr.nets import NetShapes
from huscf_flwr.planning.devices import Profile
from huscf_flwr.planning.plan import Plan, make_plan
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.runner.cohorts import share
from huscf_flwr.runner.pace import Pace
from huscf_flwr.split.cuts import Cut, read_cuts
from strategies.devices import ClientDevices

log = logging.getLogger("huscf_flwr.strategy")


class CutPlanner:
    """Plans once, for the clients that are there at first; later ones join the nearest group."""

    def __init__(
        self,
        config: RunConfig,
        shapes: NetShapes,
        devices: ClientDevices,
        server_flops_per_s: Callable[[int], float],
    ) -> None:
        """Read the cuts that the run config lists, if it does.

        Parameters
        ----------
        config: see `GANStrategy`.
        shapes: of the net.
        devices: those of the clients.
        server_flops_per_s: measures the server's speed for a cohort of so many clients.

        Raises
        ------
        UserError: a cut is impossible.
        """
        self._config = config
        self._server_flops_per_s = server_flops_per_s
        self._devices = devices
        self._listed = [] if config.cuts in SEARCHES else read_cuts(config.cuts, shapes)
        self.plan: Plan | None = None

    def choose(self, clients: Sequence[ClientInfo]) -> dict[int, Cut]:
        """The cut of each client, by number.

        Raises
        ------
        UserError: what a client says of its device is impossible, or `exhaustive` is.
        """
        if self._listed:
            return {info.number: self._listed[info.number % len(self._listed)] for info in clients}
        profiles = self._devices.profiles(clients)
        if self.plan is None:
            self.plan = self._make(clients)
        return {
            number: self.plan.cuts[_nearest(self.plan.fleet.profiles, profile)]
            for number, profile in profiles.items()
        }

    def compare(self, pace: Pace) -> str:
        """The predicted time of an iteration beside the measured one, in words."""
        measured = f"{pace.clients:.1f} clients: {pace.seconds:.3f} s measured"
        if self.plan is None:
            return f"an iteration of {measured}"
        predicted = f"{self.plan.predict(pace.clients):.3f} s predicted"
        return f"an iteration of {measured}, {predicted} for {self._devices}"

    def _make(self, clients: Sequence[ClientInfo]) -> Plan:
        config = self._config
        cohort = share(config.taking_part(len(clients)), config.cohort_size)
        fleet = self._devices.fleet(clients, lambda: self._server_flops_per_s(cohort))
        assert fleet is not None
        plan = make_plan(
            config.net_spec,
            config.batch_size,
            fleet,
            cohort=cohort,
            search=config.cuts,
            seed=config.seed,
            coding=config.coding,
        )
        log.info(
            "planned cuts for %s and %s (%s search, %.2f s):",
            self._devices,
            plan.fleet.server,
            plan.search,
            plan.seconds,
        )
        for line in plan.lines():
            log.info("  %s", line)
        log.info("predicted: %.3f s for an iteration of %d clients", plan.latency_s, cohort)
        return plan


def _nearest(known: Sequence[Profile], profile: Profile) -> int:
    """Index of the group that is the most like this profile."""

    def distance(index: int) -> float:
        other = known[index]
        return abs(math.log(profile.flops_per_s / other.flops_per_s)) + abs(
            math.log(profile.link_bytes_per_s / other.link_bytes_per_s)
        )

    return min(range(len(known)), key=distance)
