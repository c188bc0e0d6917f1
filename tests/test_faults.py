"""Faults of real processes that take minutes to see through; `make faults` runs them, and more."""

import csv
import re
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from programs import SMALL, deployment, flwr_command

from simulations.rehearsal import Rehearsal, family, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NODES, ROUNDS, FEW = 4, 6, 3
EVERYBODY = [0, 1, 2, 3]


class Run:
    """A run of a deployment, which goes on in the background."""

    def __init__(self, running: Rehearsal, name: str, **keys: object) -> None:
        self.output = running.folder / name
        self.log = running.folder / f"{name}.log"
        settings = {
            **SMALL,
            "num-clients": NODES,
            "num-server-rounds": ROUNDS,
            "evaluate-every": 1000,
            "start-timeout": 120.0,
            "round-timeout": 200.0,
            "output-dir": str(self.output),
            **keys,
        }
        self._process = running.start(*flwr_command(settings), log=self.log)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def clients(self) -> dict[int, list[int]]:
        """Who finished each round so far."""
        found: dict[int, list[int]] = defaultdict(list)
        if (path := self.output / "clusters.csv").exists():
            for row in csv.DictReader(path.open()):
                found[int(row["round"])].append(int(row["client"]))
        return found

    def round(self, number: int) -> None:
        """Wait until a round is over, and can be gone on from."""
        saved = self.output / "checkpoints" / f"round-{number:03d}.safetensors"
        until(lambda: saved.exists() or self.ended, 300, self.log)
        assert number in self.clients, self.log.read_text()

    def end(self) -> dict[int, list[int]]:
        """Wait until all rounds are over; who finished each."""
        until(lambda: self.ended, 900, self.log)
        assert (self.output / "summary.json").exists(), self.log.read_text()
        return self.clients

    @property
    def began(self) -> int:
        """The first round that it trained."""
        return int(re.findall(r"  round (\d+)/", self.log.read_text())[0])

    def cut_off(self) -> int:
        """Wait until it has ended before its time; its last round."""
        until(lambda: self.ended, 300, self.log)
        assert not (self.output / "summary.json").exists()
        return max(self.clients)


@pytest.fixture
def running(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    """A server and its devices, from their kits, in whose Flower `flwr run` starts runs."""
    with deployment(tmp_path, NODES) as started:
        monkeypatch.setenv("FLWR_HOME", str(started.home))
        yield started


def kill(processes: list[psutil.Process]) -> None:
    assert processes
    for member in processes:
        member.kill()
    psutil.wait_procs(processes, timeout=10)


def named(running: Rehearsal, program: str) -> list[psutil.Process]:
    """Those of the server's processes that run a program."""
    return [p for p in family(running.server) if program in " ".join(p.cmdline())]


@pytest.mark.fault("4 devices over TLS, each with its key, 3 rounds", lost="nothing")
def test_four_devices(running: Rehearsal) -> None:
    found = Run(running, "out", **{"num-server-rounds": FEW}).end()
    assert found == dict.fromkeys(range(1, FEW + 1), EVERYBODY)


@pytest.mark.fault("SIGKILL of a device, which is started again", lost="its part of a few rounds")
def test_a_device_that_is_killed_comes_back_as_the_same_client(running: Rehearsal) -> None:
    run = Run(running, "out")
    run.round(1)
    kill(family(running.nodes[2]))
    running.nodes[2] = running.start_node(2)
    found = run.end()
    assert sorted(found) == list(range(1, ROUNDS + 1))
    assert set().union(*found.values()) == set(EVERYBODY)  # and no client 4
    assert found[ROUNDS] == EVERYBODY


@pytest.mark.fault("SIGSTOP of a device beyond its deadline", lost="its part of a few rounds")
def test_a_device_that_stands_still_is_left_out_and_back(running: Rehearsal) -> None:
    run = Run(running, "out")
    run.round(1)
    stopped = family(running.nodes[3])
    for member in stopped:
        member.send_signal(signal.SIGSTOP)
    run.round(3)
    for member in stopped:
        member.send_signal(signal.SIGCONT)
    found = run.end()
    assert sorted(found) == list(range(1, ROUNDS + 1))
    assert any(len(members) == NODES - 1 for members in found.values())
    assert found[ROUNDS] == EVERYBODY


@pytest.mark.fault("SIGKILL of the ServerApp, and the run resumed", lost="the round it was in")
def test_a_killed_server_app(running: Rehearsal) -> None:
    few = {"num-server-rounds": FEW}
    run = Run(running, "out", **few)
    run.round(1)
    kill(named(running, "flwr-serverapp"))
    done = run.cut_off()
    more = Run(running, "more", resume=str(run.output), **few)
    assert more.end() == dict.fromkeys(range(1, FEW + 1), EVERYBODY)
    assert more.began == done + 1


@pytest.mark.fault("SIGKILL of the SuperLink, and all started again", lost="the round it was in")
def test_a_killed_superlink(running: Rehearsal) -> None:
    few = {"num-server-rounds": FEW}
    run = Run(running, "out", **few)
    run.round(1)
    kill(named(running, "flower-superlink"))
    log = running.folder / "server.log"
    until(lambda: running.server.poll() is not None, 30, log)
    assert "Flower's SuperLink has ended" in log.read_text()
    done = run.cut_off()
    running.server = running.start_server()
    more = Run(running, "more", resume=str(run.output), **few)
    assert more.end() == dict.fromkeys(range(1, FEW + 1), EVERYBODY)
    assert more.began == done + 1
