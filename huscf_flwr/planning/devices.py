"""What devices can do: profiles, files of them, and fleets, where equal devices are a group."""

import difflib
import math
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from huscf_flwr.errors import UserError

PAPER = "paper"
"""Names the file of the paper's seven devices, which comes with the package."""

MEASURED = "measured"
"""Names what the clients measure, in place of a file."""

SPEEDS = ("flops-per-s", "link-bytes-per-s")
"""The keys of a device's two speeds, wherever they are stated."""
OVERHEAD = "overhead-s"
"""The key of a measured device's overhead."""
DEVICE_KEYS = (*SPEEDS, OVERHEAD, "profile")
"""All that a client may say of its device: its speeds, with the overhead if it measured them; or
the name of its profile."""

_STEPS_PER_OCTAVE = 2  # measured speeds this close, 41 %, count as equal


@dataclass(frozen=True)
class OwnDevice:
    """One of several devices of a user, which share what a client computes, where a method can.

    Attributes
    ----------
    capacity: parameters that it has room for.
    time_factor: how many times as long as at the speed of the user's profile it computes.
    """

    capacity: int
    time_factor: float


@dataclass(frozen=True)
class Profile:
    """What one kind of device can do.

    Attributes
    ----------
    flops_per_s: floating-point operations per second in training; a multiply-add is two.
    link_bytes_per_s: of its link to the server, either way.
    overhead_s: what it needs for a pass through a net besides, whichever blocks it holds: small
        blocks take time that their operations do not explain. Clients that measure themselves
        know it; 0 otherwise.
    devices: of its user, among which Federated Split GANs share a discriminator; none: it is one.
    """

    name: str
    flops_per_s: float
    link_bytes_per_s: float
    overhead_s: float = 0.0
    devices: tuple[OwnDevice, ...] = ()

    def __str__(self) -> str:
        speed, link = _short(self.flops_per_s / 1e9), _short(self.link_bytes_per_s / 1e6)
        return f"{self.name} ({speed} GFLOP/s, {link} MB/s)"


@dataclass(frozen=True)
class Devices:
    """The content of a file of profiles.

    Attributes
    ----------
    server: the server's profile.
    profiles: those of the clients.
    shares: how many of the clients have each profile, in proportion.
    """

    server: Profile
    profiles: tuple[Profile, ...]
    shares: tuple[int, ...]

    def named(self, name: str, where: str) -> Profile:
        """The profile with this name; `where` begins the message of a `UserError` without one."""
        for profile in self.profiles:
            if profile.name == name:
                return profile
        known = ", ".join(profile.name for profile in self.profiles)
        raise UserError(f'{where}: profile "{name}" is unknown: the devices file has {known}')

    def spread(self, clients: int) -> list[int]:
        """How many of `clients` get each profile: their shares, the remainder to the first."""
        total = sum(self.shares)
        counts = [clients * share // total for share in self.shares]
        by_loss = sorted(range(len(counts)), key=lambda i: -(clients * self.shares[i] % total))
        for i in by_loss[: clients - sum(counts)]:
            counts[i] += 1
        return counts

    def deal(self, clients: int, seed: int) -> list[Profile]:
        """A profile for each client, spread as `spread` says and shuffled by `seed`."""
        pairs = zip(self.profiles, self.spread(clients), strict=True)
        dealt = [profile for profile, count in pairs for _ in range(count)]
        random.Random(seed).shuffle(dealt)
        return dealt


@dataclass(frozen=True, eq=False)
class Fleet:
    """The clients of one iteration, in G groups of equal devices, and the server.

    Attributes
    ----------
    profiles: what the devices of each group can do.
    clients: (G,) how many there are; a fraction where only some take part in an iteration.
    server: what the server can do.
    """

    profiles: tuple[Profile, ...]
    clients: np.ndarray
    server: Profile

    @property
    def flops_per_s(self) -> np.ndarray:
        """(G,) speed of a device of each group."""
        return np.array([profile.flops_per_s for profile in self.profiles])

    @property
    def link_bytes_per_s(self) -> np.ndarray:
        """(G,) link of a device of each group."""
        return np.array([profile.link_bytes_per_s for profile in self.profiles])

    @property
    def overhead_s(self) -> np.ndarray:
        """(G,) seconds that a device of each group needs for a pass besides its operations."""
        return np.array([profile.overhead_s for profile in self.profiles])

    def of_size(self, clients: float) -> "Fleet":
        """The same mix of devices, with this many clients in all."""
        return Fleet(self.profiles, self.clients * (clients / self.clients.sum()), self.server)


def fleet_of(devices: Devices, clients: int | None) -> Fleet:
    """As many clients as asked for, spread over the profiles; as many as the file says for None.

    Raises
    ------
    UserError: fewer than one client.
    """
    count = sum(devices.shares) if clients is None else clients
    if count < 1:
        raise UserError(f"{count} clients: there must be at least one")
    pairs = zip(devices.profiles, devices.spread(count), strict=True)
    return grouped(devices.server, [profile for profile, n in pairs for _ in range(n)])[0]


def grouped(server: Profile, profiles: Sequence[Profile]) -> tuple[Fleet, list[int]]:
    """A fleet of clients with these profiles, and the group of each client.

    Clients with the same speeds are one group, by the name of the first of them.
    """
    groups: dict[Profile, int] = {}
    first: list[Profile] = []
    group_of = []
    for profile in profiles:
        nameless = replace(profile, name="")
        if nameless not in groups:
            groups[nameless] = len(groups)
            first.append(profile)
        group_of.append(groups[nameless])
    counts = np.bincount(group_of, minlength=len(first)).astype(float)
    return Fleet(tuple(first), counts, server), group_of


def alike(measured: Sequence[Profile]) -> list[Profile]:
    """Measured profiles, those that are nearly equal replaced by their mean.

    Without it, noise would make every device a group of its own.
    """
    speeds = np.array([[p.flops_per_s, p.link_bytes_per_s] for p in measured])
    cells = [tuple(cell) for cell in np.round(np.log2(speeds) * _STEPS_PER_OCTAVE)]
    means: dict[tuple[float, ...], Profile] = {}
    for cell in dict.fromkeys(cells):
        inside = [other == cell for other in cells]
        flops_per_s, link = np.exp(np.log(speeds[inside]).mean(axis=0)).tolist()
        overhead_s = float(
            np.mean([p.overhead_s for p, its in zip(measured, inside, strict=True) if its])
        )
        means[cell] = Profile(f"measured-{len(means) + 1}", flops_per_s, link, overhead_s)
    return [means[cell] for cell in cells]


def read_devices(source: str, base_dir: str = ".") -> Devices:
    """Read the profiles in a TOML file, or those of `paper`.

    Raises
    ------
    UserError: no such file, or something in it is missing, unknown or out of range.
    """
    if source == PAPER:
        text = resources.files("huscf_flwr.planning").joinpath("paper.toml").read_text("utf-8")
    else:
        try:
            text = (Path(base_dir) / source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f'devices "{source}": {reason}; it must be {PAPER} or a TOML file of profiles'
            ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source}: cannot be read as TOML: {error}") from None
    return _parsed(content, source)


def _parsed(content: Mapping[str, Any], source: str) -> Devices:
    _only(content, {"server", "profiles"}, source)
    server, tables = content.get("server"), content.get("profiles", [])
    if not isinstance(server, dict):
        raise UserError(f"{source}: it has no [server] with flops-per-s and link-bytes-per-s")
    if not isinstance(tables, list) or not tables:
        raise UserError(f"{source}: it has no devices: each kind is a [[profiles]]")
    profiles, shares = [], []
    for number, table in enumerate(tables, start=1):
        where = f"{source}: profile {number}"
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise UserError(f"{where} has no name")
        where = f'{source}: profile "{table["name"]}"'
        _only(table, {"name", "clients", "devices", *SPEEDS}, where)
        share = table.get("clients", 1)
        if type(share) is not int or share < 1:
            raise UserError(f"{where}: clients={share!r} must be a whole number, at least 1")
        own = _own_devices(table.get("devices", []), where)
        profiles.append(replace(read_profile(table["name"], table, where), devices=own))
        shares.append(share)
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{source}: two profiles are named "{name}"')
    _only(server, set(SPEEDS), f"{source}: [server]")
    return Devices(
        read_profile("server", server, f"{source}: [server]"), tuple(profiles), tuple(shares)
    )


def _own_devices(tables: Any, where: str) -> tuple[OwnDevice, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{where}: devices={tables!r}: each is a [[profiles.devices]]")
    found = []
    for number, table in enumerate(tables, start=1):
        here = f"{where}: device {number}"
        _only(table, {"capacity", "time-factor"}, here)
        capacity, factor = (_number(table, key, here) for key in ("capacity", "time-factor"))
        if not (0 < factor < math.inf and 0 < capacity < math.inf):
            raise UserError(f"{here}: capacity and time-factor must be above 0, and finite")
        found.append(OwnDevice(int(capacity), factor))
    return tuple(found)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def read_profile(name: str, table: Mapping[str, Any], where: str) -> Profile:
    """A profile from its speeds, by their keys; `where` begins the message of a `UserError`.

    Raises
    ------
    UserError: a speed is missing, no finite number, or not above 0; or the overhead, which may be
        missing, is no finite number, or below 0.
    """
    flops_per_s, link_bytes_per_s = (_number(table, key, where) for key in SPEEDS)
    for key, speed in zip(SPEEDS, (flops_per_s, link_bytes_per_s), strict=True):
        if not 0 < speed < math.inf:
            raise UserError(f"{where}: {key}={speed:g} must be above 0, and finite")
    overhead_s = _number({OVERHEAD: 0.0, **table}, OVERHEAD, where)
    if not 0 <= overhead_s < math.inf:
        raise UserError(f"{where}: {OVERHEAD}={overhead_s:g} must be at least 0, and finite")
    return Profile(name, flops_per_s, link_bytes_per_s, overhead_s)


def _number(table: Mapping[str, Any], key: str, where: str) -> float:
    value = table.get(key)
    if type(value) not in (int, float):
        problem = f"lacks {key}" if value is None else f"{key}={value!r} must be a number"
        raise UserError(f"{where}: {problem}")
    return float(value)  # type: ignore[arg-type]


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise UserError(f'{where}: unknown key "{key}": {hint}')
