"""The app as its users run it: `flwr run`, in simulation and on SuperLink and SuperNodes.

Each test starts the real programs on free ports of this machine and ends what it started.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import PROJECT, images, write_npz

BIN = Path(sys.executable).parent
SMALL = (
    "num-classes=3 width=2 batch-size=4 local-epochs=1 num-server-rounds=2 utility-images=100 "
    "clusters='2' warmup-rounds=1 straggler-timeout=20.0"
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Flower's own, and this environment for all that it starts."""
    folder = tmp_path / "flwr-home"
    folder.mkdir()
    for name, value in {
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@contextmanager
def process(*command: str, log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is running inside the block, and ended with its children after it."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], stdout=output, stderr=output, cwd=cwd
        )
    try:
        yield started
    finally:
        try:
            family = [*psutil.Process(started.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        started.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([*family, psutil.Process(started.pid)], timeout=10)
        for member in alive:
            member.kill()
        started.wait()


@contextmanager
def superlink(home: Path, *options: str) -> Iterator[int]:
    """A SuperLink that answers, known to `flwr run` as `here`; its port."""
    port = free_port()
    command = ("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
    with process(*command, *options, log=home / "superlink.log", cwd=home) as server:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (
                    home / "superlink.log"
                ).read_text()
                time.sleep(0.2)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        yield port


def flwr_run(cwd: Path, run_config: str, federation: str = "") -> str:
    """Run the app to its end; everything it logged."""
    command = [str(BIN / "flwr"), "run", str(PROJECT), "here", "--stream"]
    command += ["--run-config", run_config]
    if federation:
        command += ["--federation-config", federation]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)
    return done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_simulation_on_pools_of_one_and_two(home: Path, tmp_path: Path) -> None:
    """Six clients, and relative paths that mean the folder where the command was typed."""
    here = tmp_path / "here"
    here.mkdir()
    for seed, name in enumerate(("one", "two")):
        write_npz(here / f"{name}.npz", images(40, seed=seed))
    with superlink(home, "--simulation"):
        for workers in (1, 2):
            log = flwr_run(
                here,
                f"{SMALL} domains='one.npz,two.npz' output-dir='out-{workers}'",
                f"num-supernodes=6 client-resources-num-cpus=1 init-args-num-cpus={workers}",
            )
            results = here / f"out-{workers}"
            assert (results / "summary.json").exists(), log
            summary = json.loads((results / "summary.json").read_text())
            assert (summary["rounds"], summary["clients"]) == (2, 6)
            assert log.count(str(results)) == 2  # named first and last
            assert log.count("see them in turns") == 1
            assert (here / "runs" / "latest").resolve() == results
        log = flwr_run(here, f"{SMALL} domains='one.npz' cuts='3-1-1-1'")
        assert "the run failed: cut gen_head=3 takes the middle block from the server" in log
        assert "Traceback" not in log
        log = flwr_run(here, "widht=3")
        assert "Invalid run configuration" in log  # Flower's own check, before ours


@pytest.mark.timeout(600)
def test_superlink_and_two_supernodes(home: Path, tmp_path: Path) -> None:
    """Two nodes with a file each, two rounds; the server has neither file nor a domain's name."""
    with ExitStack() as running:
        link = running.enter_context(superlink(home))
        for node in (1, 2):
            data = write_npz(tmp_path / f"secret-{node}.npz", images(40, seed=node))
            running.enter_context(
                process(
                    *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}"),
                    *("--port", str(free_port()), "--node-config", f'data="{data}"'),
                    log=tmp_path / f"node-{node}.log",
                    cwd=tmp_path,
                )
            )
        log = flwr_run(tmp_path, f"{SMALL} cohort='all' output-dir='{tmp_path / 'out'}'")
    assert (tmp_path / "out" / "summary.json").exists(), log
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rounds"], summary["clients"], summary["domains"]) == (2, 2, {})
    assert summary["adjusted_rand_index"] is None
    assert "planned cuts for measured devices" in log  # the nodes have data of their own
    assert summary["latency"]["predicted_s"] > 0 < summary["latency"]["measured_s"]
    assert sum(found["clients"] for found in summary["clusters_scores"].values()) == 2
    with (tmp_path / "out" / "clusters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["client"]) for row in rows] == [
        ("1", "0"),
        ("1", "1"),
        ("2", "0"),
        ("2", "1"),
    ]
    assert len(list((tmp_path / "out" / "samples").glob("*.png"))) >= 2
    assert "secret" not in log
