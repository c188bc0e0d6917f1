"""Real programs for tests: started on free ports, and ended with all that they started."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from conftest import BIN, PROJECT

SMALL = (
    "num-classes=3 width=2 batch-size=4 local-epochs=1 num-server-rounds=2 utility-images=100 "
    "clusters='2' warmup-rounds=1 straggler-timeout=20.0"
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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


def flwr_run(cwd: Path, run_config: str, federation: str = "") -> str:
    """Run the app to its end; everything it logged."""
    command = [str(BIN / "flwr"), "run", str(PROJECT), "--stream"]
    command += ["--run-config", run_config]
    if federation:
        command += ["--federation-config", federation]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)
    return done.stdout + done.stderr
