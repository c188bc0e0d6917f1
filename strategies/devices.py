"""What the devices of a run's clients can do: dealt from a file, or as they say themselves."""

from collections.abc import Callable, Sequence

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.planning.devices import (
    MEASURED,
    OVERHEAD,
    PAPER,
    Devices,
    Fleet,
    Profile,
    alike,
    grouped,
    read_devices,
    read_profile,
)
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.report.records import ClientInfo


class ClientDevices:
    """The profile of each client, by the run key `devices`."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Read the file that is named, unless nothing depends on it, as cuts are listed.

        Raises
        ------
        UserError: something is wrong with it.
        """
        self._source = PAPER if config.devices == "auto" else config.devices
        self._seed = config.seed
        self._file: Devices | None = None
        self.planned = config.cuts in SEARCHES
        """Whether anything depends on devices."""
        if self.planned and config.devices != MEASURED:
            self._file = read_devices(self._source, base_dir)
        self._measured: bool | None = None

    def __str__(self) -> str:
        return "measured devices" if self._measured else f"the devices of {self._source}"

    def fleet(
        self, clients: Sequence[ClientInfo], server_flops_per_s: Callable[[], float] | None = None
    ) -> Fleet | None:
        """These clients' devices, and the server as the file says it.

        Where clients measured themselves, so does the server, by `server_flops_per_s`; without it
        there is no fleet then. What clients measured of their links holds for both ends.

        Raises
        ------
        UserError: see `profiles`.
        """
        if self._file is None and server_flops_per_s is None:
            return None
        profiles = list(self.profiles(clients).values())
        if self._file is not None and not self._measured:
            server = self._file.server
        elif server_flops_per_s is None:
            return None
        else:
            links = max(profile.link_bytes_per_s for profile in profiles)
            server = Profile("server", server_flops_per_s(), links)
        return grouped(server, profiles)[0]

    def profiles(self, clients: Sequence[ClientInfo]) -> dict[int, Profile]:
        """What each client's device can do, by number.

        Raises
        ------
        UserError: what a client says of its device is impossible.
        """
        found: dict[int, Profile] = {}
        silent = [info.number for info in clients if not info.device]
        if silent and self._file is None:
            raise UserError(f'devices="{MEASURED}": client {silent[0]} did not measure its device')
        if self._file is not None:
            dealt = self._file.deal(len(silent), self._seed)
            found |= zip(silent, dealt, strict=True)
        measured: dict[int, Profile] = {}
        for info in clients:
            where = f"client {info.number}"
            if "profile" in info.device:
                name = str(info.device["profile"])
                if self._file is None:
                    raise UserError(
                        f'{where} has the profile "{name}", but devices="{MEASURED}" '
                        "names no file of profiles"
                    )
                found[info.number] = self._file.named(name, where)
            elif info.device:
                own = read_profile(where, info.device, where)
                (measured if OVERHEAD in info.device else found)[info.number] = own
        if measured:
            found |= zip(measured, alike(list(measured.values())), strict=True)
        if self._measured is None:
            self._measured = bool(measured)
        return {info.number: found[info.number] for info in clients}
