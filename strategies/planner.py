"""Which cut each client of a run gets: dealt from a list, or planned for the clients' devices."""

import logging
import math
from collections.abc import Callable, Sequence

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import NetShapes
from huscf_flwr.planning.devices import (
    MEASURED,
    OVERHEAD,
    PAPER,
    Devices,
    Profile,
    alike,
    grouped,
    read_devices,
    read_profile,
)
from huscf_flwr.planning.plan import Plan, make_plan
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.runner.cohorts import share
from huscf_flwr.runner.pace import Pace
from huscf_flwr.split.cuts import Cut, read_cuts

log = logging.getLogger("huscf_flwr.strategy")


class CutPlanner:
    """Plans once, for the clients that are there at first; later ones join the nearest group."""

    def __init__(
        self,
        config: RunConfig,
        shapes: NetShapes,
        base_dir: str,
        server_flops_per_s: Callable[[int], float],
    ) -> None:
        """Read what the run config names.

        Parameters
        ----------
        config, base_dir: see `GANStrategy`.
        shapes: of the net.
        server_flops_per_s: measures the server's speed for a cohort of so many clients.

        Raises
        ------
        UserError: a cut is impossible, or something is wrong with the devices file.
        """
        self._config = config
        self._server_flops_per_s = server_flops_per_s
        self._listed: list[Cut] = []
        self._devices: Devices | None = None
        if config.cuts not in SEARCHES:
            self._listed = read_cuts(config.cuts, shapes)
        elif config.devices != MEASURED:
            file = PAPER if config.devices == "auto" else config.devices
            self._devices = read_devices(file, base_dir)
        self._measured = False
        self.plan: Plan | None = None

    def choose(self, clients: Sequence[ClientInfo]) -> dict[int, Cut]:
        """The cut of each client, by number.

        Raises
        ------
        UserError: what a client says of its device is impossible, or `exhaustive` is.
        """
        if self._listed:
            return {info.number: self._listed[info.number % len(self._listed)] for info in clients}
        profiles = self._profiles(clients)
        if self.plan is None:
            self.plan = self._make(list(profiles.values()))
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
        return f"an iteration of {measured}, {predicted} for {self.devices}"

    def _make(self, profiles: list[Profile]) -> Plan:
        config = self._config
        cohort = share(len(profiles), config.cohort_size)
        fleet, _ = grouped(self._server(profiles, cohort), profiles)
        plan = make_plan(
            config.net_spec,
            config.batch_size,
            fleet,
            cohort=cohort,
            search=config.cuts,
            seed=config.seed,
        )
        log.info(
            "planned cuts for %s devices and %s (%s search, %.2f s):",
            "measured" if self._measured else f"the {self._source}",
            plan.fleet.server,
            plan.search,
            plan.seconds,
        )
        for line in plan.lines():
            log.info("  %s", line)
        log.info("predicted: %.3f s for an iteration of %d clients", plan.latency_s, cohort)
        return plan

    @property
    def devices(self) -> str:
        """What the plan is for, in words."""
        return "measured devices" if self._measured else f"the devices of {self._source}"

    @property
    def _source(self) -> str:
        return PAPER if self._config.devices == "auto" else self._config.devices

    def _server(self, profiles: list[Profile], cohort: int) -> Profile:
        """As the file says it; where clients measured themselves, so does the server.

        What they measured of their links holds for both ends.
        """
        if self._devices is not None and not self._measured:
            return self._devices.server
        links = (profile.link_bytes_per_s for profile in profiles)
        return Profile("server", self._server_flops_per_s(cohort), max(links))

    def _profiles(self, clients: Sequence[ClientInfo]) -> dict[int, Profile]:
        found: dict[int, Profile] = {}
        silent = [info.number for info in clients if not info.device]
        if silent and self._devices is None:
            raise UserError(f'devices="{MEASURED}": client {silent[0]} did not measure its device')
        if self._devices is not None:
            dealt = self._devices.deal(len(silent), self._config.seed)
            found |= zip(silent, dealt, strict=True)
        measured: dict[int, Profile] = {}
        for info in clients:
            where = f"client {info.number}"
            if "profile" in info.device:
                name = str(info.device["profile"])
                if self._devices is None:
                    raise UserError(
                        f'{where} has the profile "{name}", but devices="{MEASURED}" '
                        "names no file of profiles"
                    )
                found[info.number] = self._devices.named(name, where)
            elif info.device:
                own = read_profile(where, info.device, where)
                (measured if OVERHEAD in info.device else found)[info.number] = own
        if measured:
            self._measured = self._measured or self.plan is None
            found |= zip(measured, alike(list(measured.values())), strict=True)
        return {info.number: found[info.number] for info in clients}


def _nearest(known: Sequence[Profile], profile: Profile) -> int:
    """Index of the group that is the most like this profile."""

    def distance(index: int) -> float:
        other = known[index]
        return abs(math.log(profile.flops_per_s / other.flops_per_s)) + abs(
            math.log(profile.link_bytes_per_s / other.link_bytes_per_s)
        )

    return min(range(len(known)), key=distance)
