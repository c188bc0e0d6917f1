"""Faults of real processes that take minutes to see through; `make faults` runs them, and more."""

import csv
import signal
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import PROJECT
from programs import Deployment, deployment, family, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = 6
RUN = {
    "num-clients": 4,
    "num-classes": 3,
    "width": 2,
    "batch-size": 4,
    "local-epochs": 1,
    "num-server-rounds": ROUNDS,
    "evaluate-every": 1000,
    "utility-images": 100,
    "clusters": "2",
    "warmup-rounds": 1,
    "straggler-timeout": 20.0,
    "round-timeout": 200.0,
    "start-timeout": 120.0,
}

SHORT = {"num-server-rounds": 3}


def clients_by_round(output: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    if (path := output / "clusters.csv").exists():
        for row in csv.DictReader(path.open()):
            found[int(row["round"])].append(int(row["client"]))
    return found


class Run:
    """A run of a deployment, which goes on in the background."""

    def __init__(self, running: Deployment, name: str, **keys: object) -> None:
        self.output = running.folder / name
        settings = {**RUN, "output-dir": str(self.output), **keys}
        words = [f"{k}='{v}'" if isinstance(v, str) else f"{k}={v}" for k, v in settings.items()]
        self.log = running.folder / f"{name}.log"
        command = ("flwr", "run", str(PROJECT), "--stream", "--run-config", " ".join(words))
        self.process = running.start(*command, log=self.log)

    def round(self, number: int) -> None:
        """Wait until a round is over."""
        until(lambda: number in clients_by_round(self.output) or self.ended, 300, self.log)
        assert number in clients_by_round(self.output), self.log.read_text()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> str:
        """Wait for it; everything it logged."""
        until(lambda: self.ended, 900, self.log)
        return self.log.read_text()


@pytest.fixture
def started(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The home that `flwr run` looks into, of the deployment in this folder."""
    return lambda: monkeypatch.setenv("FLWR_HOME", str(tmp_path / "kits" / "server" / "flower"))


def kill(processes: list[psutil.Process]) -> None:
    for member in processes:
        member.kill()
    psutil.wait_procs(processes, timeout=10)


@pytest.mark.fault("4 devices over TLS, each with its key, 3 rounds", lost="nothing")
def test_four_devices(started: Callable[[], None], tmp_path: Path) -> None:
    with deployment(tmp_path, 4) as running:
        started()
        run = Run(running, "out", **SHORT)
        log = run.end()
        assert (run.output / "summary.json").exists(), log
    assert clients_by_round(run.output) == {n: [0, 1, 2, 3] for n in (1, 2, 3)}


@pytest.mark.fault("SIGKILL of a device, which is started again", lost="its part of a round")
def test_a_device_that_is_killed_comes_back_as_the_same_client(
    started: Callable[[], None], tmp_path: Path
) -> None:
    with deployment(tmp_path, 4) as running:
        started()
        run = Run(running, "out")
        run.round(1)
        kill(family(running.nodes[2]))
        running.nodes[2] = running.start_node(2)
        log = run.end()
        assert (run.output / "summary.json").exists(), log
    found = clients_by_round(run.output)
    assert sorted(found) == list(range(1, ROUNDS + 1))
    assert set().union(*found.values()) == {0, 1, 2, 3}  # and no client 4
    assert found[ROUNDS] == [0, 1, 2, 3]


@pytest.mark.fault("SIGSTOP of a device beyond its deadline", lost="its part of a round")
def test_a_device_that_stands_still_is_left_out_and_back(
    started: Callable[[], None], tmp_path: Path
) -> None:
    with deployment(tmp_path, 4) as running:
        started()
        run = Run(running, "out")
        run.round(1)
        stopped = family(running.nodes[3])
        for member in stopped:
            member.send_signal(signal.SIGSTOP)
        run.round(3)
        for member in stopped:
            member.send_signal(signal.SIGCONT)
        log = run.end()
        assert (run.output / "summary.json").exists(), log
    found = clients_by_round(run.output)
    assert sorted(found) == list(range(1, ROUNDS + 1))
    assert found[ROUNDS] == [0, 1, 2, 3]
    assert any(len(members) == 3 for members in found.values())


@pytest.mark.fault("SIGKILL of the ServerApp, and the run resumed", lost="the round it was in")
def test_a_killed_server_app(started: Callable[[], None], tmp_path: Path) -> None:
    with deployment(tmp_path, 4) as running:
        started()
        run = Run(running, "out", **SHORT)
        run.round(1)
        apps = [p for p in family(running.server) if "flwr-serverapp" in " ".join(p.cmdline())]
        assert apps
        kill(apps)
        run.end()
        assert not (run.output / "summary.json").exists()
        done = max(clients_by_round(run.output))
        again = Run(running, "more", resume=str(run.output), **SHORT)
        log = again.end()
        assert (again.output / "summary.json").exists(), log
    found = clients_by_round(again.output)
    assert found == {n: [0, 1, 2, 3] for n in range(done + 1, 4)}


@pytest.mark.fault("SIGKILL of the SuperLink, and all started again", lost="the round it was in")
def test_a_killed_superlink(started: Callable[[], None], tmp_path: Path) -> None:
    with deployment(tmp_path, 4) as running:
        started()
        run = Run(running, "out", **SHORT)
        run.round(1)
        links = [p for p in family(running.server) if "flower-superlink" in " ".join(p.cmdline())]
        kill(links)
        until(lambda: running.server.poll() is not None, 30, tmp_path / "server.log")
        assert "Flower's SuperLink has ended" in (tmp_path / "server.log").read_text()
        run.end()
        done = max(clients_by_round(run.output))
        running.server = running.start_server()
        again = Run(running, "more", resume=str(run.output), **SHORT)
        log = again.end()
        assert (again.output / "summary.json").exists(), log
    found = clients_by_round(again.output)
    assert found == {n: [0, 1, 2, 3] for n in range(done + 1, 4)}
