"""Real programs for tests: started on free ports, and ended with all that they started."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from conftest import BIN, PROJECT, images, write_npz

from huscf_flwr.deploy.kits import make_kits

Keys = Mapping[str, object]
"""Of a run, by their names."""

SMALL: Keys = {
    "num-classes": 3,
    "width": 2,
    "batch-size": 4,
    "local-epochs": 1,
    "num-server-rounds": 2,
    "utility-images": 100,
    "clusters": "2",
    "warmup-rounds": 1,
    "straggler-timeout": 20.0,
    "scoring": "authors",  # who take few steps where images are few
}
"""A run that takes a moment."""


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
            members = family(started)
        except psutil.NoSuchProcess:
            members = []
        started.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(members, timeout=10)
        for member in alive:
            member.kill()
        started.wait()


def until(happened: Callable[[], object], seconds: float, log: Path) -> None:
    """Wait for something that can only be seen by looking."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A program and all that it has started."""
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


class Deployment:
    """A server and its devices, from their kits, on this machine.

    Attributes
    ----------
    port: where devices reach the server.
    server: its process.
    nodes: the devices' processes, by number from 1.
    """

    def __init__(self, folder: Path, nodes: int, running: ExitStack) -> None:
        self.folder = folder
        self.port = free_port()
        self._running = running
        make_kits(folder / "kits", "127.0.0.1", nodes, self.port)
        self.server = self.start_server()
        self.nodes = {node: self.start_node(node) for node in range(1, nodes + 1)}

    @property
    def home(self) -> Path:
        """Of Flower's own files, for whoever starts a run."""
        return self.folder / "kits" / "server" / "flower"

    def start_server(self) -> subprocess.Popen[bytes]:
        log = self.folder / "server.log"
        server = self.start(self.folder / "kits" / "server" / "start", log=log)
        ready = "a run is started"
        until(lambda: ready in log.read_text() or server.poll() is not None, 90, log)
        assert server.poll() is None, log.read_text()
        return server

    def start_node(self, node: int) -> subprocess.Popen[bytes]:
        data = self.folder / f"secret-{node}.npz"
        if not data.exists():
            write_npz(data, images(40, seed=node))
        start = self.folder / "kits" / f"node-{node}" / "start"
        port = str(free_port())
        return self.start(start, str(data), "--port", port, log=self.folder / f"node-{node}.log")

    def start(self, *command: object, log: Path) -> subprocess.Popen[bytes]:
        """Start a program that ends with the deployment."""
        words = map(str, command)
        return self._running.enter_context(process(*words, log=log, cwd=self.folder))


@contextmanager
def deployment(folder: Path, nodes: int) -> Iterator[Deployment]:
    """Runs inside the block."""
    with ExitStack() as running:
        yield Deployment(folder, nodes, running)


def flwr_command(keys: Keys, federation: str = "") -> list[str]:
    """Run the app, and show its log."""
    words = [f"{key}='{v}'" if isinstance(v, str) else f"{key}={v}" for key, v in keys.items()]
    command = ["flwr", "run", str(PROJECT), "--stream", "--run-config", " ".join(words)]
    return [*command, "--federation-config", federation] if federation else command


def flwr_run(cwd: Path, keys: Keys, federation: str = "") -> str:
    """Run the app to its end; everything it logged."""
    program, *words = flwr_command(keys, federation)
    command = [str(BIN / program), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)
    return done.stdout + done.stderr
