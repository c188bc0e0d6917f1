"""What devices can do: files of profiles, fleets, several devices of one user, measured speeds."""

from pathlib import Path

import numpy as np
import pytest

from huscf_flwr.cli import main
from huscf_flwr.planning.costs import BlockCosts
from huscf_flwr.planning.devices import (
    Devices,
    OwnDevice,
    Profile,
    alike,
    grouped,
)
from huscf_flwr.planning.measure import speed_from
from huscf_flwr.planning.own_devices import place, user_seconds


@pytest.mark.parametrize(
    ("devices", "placed"),
    [
        # The fastest takes A and B, and has no room for C; the next takes that.
        ([(15, 2.0), (25, 1.0), (10, 3.0)], [1.0, 1.0, 2.0]),
        # Each takes one.
        ([(10, 3.0), (10, 2.0), (10, 1.0)], [1.0, 2.0, 3.0]),
        # One has no room for any; of four, the slowest is not asked.
        ([(9, 1.0), (10, 2.0), (99, 3.0)], [2.0, 3.0, 3.0]),
        ([(9, 1.0), (9, 2.0), (9, 3.0), (99, 4.0)], None),
        ([(29, 1.0)], None),
    ],
)
def test_a_users_devices_share_its_discriminator_by_hand(
    devices: list[tuple[int, float]], placed: list[float] | None
) -> None:
    """Three parts of ten parameters; a pass through each takes 30 operations, at 10 per s."""
    own = tuple(OwnDevice(*device) for device in devices)
    found = place([10, 10, 10], own)
    assert (found and [device.time_factor for device in found]) == placed
    costs = BlockCosts(np.full(3, 10.0), np.zeros(3), np.full(3, 10))
    seconds = user_seconds(costs, Profile("user", 10, 1, 1, own), passes=2)
    if placed is None:
        assert seconds is None
    else:
        hops = len(set(placed)) - 1  # there and back, 50 ms each
        assert seconds == pytest.approx(2 * (2 * 1 + 3 * sum(placed) + 2 * hops * 0.05))


def test_clients_are_spread_by_their_shares() -> None:
    profiles = tuple(Profile(name, 1, 1) for name in "abc")
    devices = Devices(Profile("server", 1, 1), profiles, (1, 1, 1))
    assert devices.spread(80) == [27, 27, 26]
    weighted = Devices(devices.server, profiles, (30, 5, 1))
    assert (weighted.spread(36), weighted.spread(12)) == ([30, 5, 1], [10, 2, 0])
    dealt = weighted.deal(36, seed=0)
    assert [p.name for p in dealt].count("a") == 30
    assert dealt == weighted.deal(36, seed=0) != weighted.deal(36, seed=1)


def test_equal_devices_are_one_group_and_nearly_equal_measurements_too() -> None:
    fleet, group_of = grouped(
        Profile("server", 1, 1), [Profile("a", 1, 2), Profile("b", 2, 2), Profile("c", 1, 2)]
    )
    assert ([p.name for p in fleet.profiles], fleet.clients.tolist()) == (["a", "b"], [2, 1])
    assert group_of == [0, 1, 0]
    mean = alike([Profile("x", 1.0, 8, 2), Profile("y", 1.1, 8, 4), Profile("z", 100, 8, 0)])
    assert mean[0] == mean[1] != mean[2]
    assert mean[0].flops_per_s == pytest.approx(1.1**0.5) and mean[0].overhead_s == 3


def test_speed_is_the_line_through_few_and_many_operations() -> None:
    """10 operations in 5 s, 30 in 9 s: 5 per s, and 3 s besides, over the eight passes."""
    assert speed_from([10, 30], [0, 0], [5, 9]) == (5, 3 / 8)
    assert speed_from([10, 30], [1, 2], [6, 11]) == (5, 3 / 8)  # with the time for sending
    assert speed_from([10, 30], [0, 0], [5, 4]) == (40 / 9, 0)  # noise
    assert speed_from([10, 30], [0, 0], [1, 5]) == (40 / 6, 0)  # would begin below zero
    assert speed_from([10, 30], [1, 1], [6]) == (2, 0)  # slow: the second was not tried


GOOD = """
[server]
flops-per-s = 1e9
link-bytes-per-s = 1e6
[[profiles]]
name = "phone"
flops-per-s = 1e8
link-bytes-per-s = 1e5
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[[profiles]]", "[[profile]]", 'unknown key "profile": did you mean profiles'),
        ("flops-per-s = 1e8", "flop-per-s = 1e8", 'profile "phone": unknown key "flop-per-s"'),
        ("flops-per-s = 1e8", "flops-per-s = 0", 'profile "phone": flops-per-s=0 must be above 0'),
        ("flops-per-s = 1e8", "flops-per-s = inf", "flops-per-s=inf must be above 0"),
        ("= 1e5", "= -1", 'profile "phone": link-bytes-per-s=-1 must be above 0'),
        ("= 1e5", '= "fast"', "link-bytes-per-s='fast' must be a number"),
        ("link-bytes-per-s = 1e5", "", 'profile "phone": lacks link-bytes-per-s'),
        ('name = "phone"', "", "profile 1 has no name"),
        ("[server]\nflops-per-s = 1e9\nlink-bytes-per-s = 1e6", "", "it has no [server]"),
        ('name = "phone"', 'name = "phone"\nclients = 0', "clients=0 must be a whole number"),
        ("= 1e5", "= 1e5\ndevices = [{capacity = 9}]", "device 1: lacks time-factor"),
        (GOOD[GOOD.index("[[") :], "", "it has no devices"),
        (GOOD, GOOD + GOOD[GOOD.index("[[") :], 'two profiles are named "phone"'),
        (GOOD, "[server", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    before: str, after: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert before in GOOD
    path = tmp_path / "fleet.toml"
    path.write_text(GOOD.replace(before, after))
    assert main(["plan", "--devices", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"huscf: {path}: ") and message in line
