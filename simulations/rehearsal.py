"""A deployment on this machine: a server and devices from their kits, as on machines of their own.

    python -m simulations.rehearsal

deals the default data to three devices, starts all that a deployment has with the commands of
docs/devices.md, which are shown, trains, and ends it.
"""

import argparse
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil

from huscf_flwr.config import RunConfig
from huscf_flwr.data.partition import client_data
from huscf_flwr.deploy import kits
from huscf_flwr.errors import UserError

BIN = Path(sys.executable).parent
"""Where this environment's programs are."""

_DEVICES = 3
_READY = "a run is started"  # says the server when devices may join
_START_SECONDS = 90.0
_KEYS = "num-server-rounds=4 local-epochs=2 utility-images=1000"


class Rehearsal:
    """A server and its devices, from their kits.

    Attributes
    ----------
    port: where devices reach the server.
    server: its process.
    nodes: the devices' processes, by number from 1.
    """

    def __init__(
        self,
        folder: Path,
        data: Sequence[Path],
        running: ExitStack,
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start everything; `show` is told of each command.

        Parameters
        ----------
        folder: for kits and logs.
        data: of each device, an .npz file or a folder.
        running: ends what was started.
        show: called with each command.
        """
        self.folder = folder
        self.port = free_port(kits.SUPERLINK + 1)
        self._data = data
        self._running = running
        self._show = show
        self._provision(len(data))
        self.server = self.start_server()
        self.nodes = {node: self.start_node(node) for node in range(1, len(data) + 1)}

    @property
    def home(self) -> Path:
        """Of Flower's own files, for whoever starts a run."""
        return self.folder / "kits" / "server" / "flower"

    def _provision(self, nodes: int) -> None:
        where = ("--port", str(self.port), "--out", str(self.folder / "kits"))
        command = ["huscf", "provision", "--server", "127.0.0.1", "--nodes", str(nodes), *where]
        self._show(shlex.join(command))
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UserError(f"no kits are made: {done.stderr.strip()}")

    def start_server(self) -> subprocess.Popen[bytes]:
        """Returns when devices may join; raises `UserError` if that does not come."""
        log = self.folder / "server.log"
        server = self.start(self.folder / "kits" / "server" / "start", log=log)
        until(lambda: _READY in log.read_text() or server.poll() is not None, _START_SECONDS, log)
        if server.poll() is not None:
            raise UserError(f"the server does not start: {log} says why")
        return server

    def start_node(self, node: int) -> subprocess.Popen[bytes]:
        """Start a device, by its number, on a port of its own."""
        start = self.folder / "kits" / f"node-{node}" / "start"
        log = self.folder / f"node-{node}.log"
        return self.start(start, self._data[node - 1], "--port", free_port(), log=log)

    def start(self, *command: object, log: Path) -> subprocess.Popen[bytes]:
        """Start a program that ends with the rehearsal."""
        words = [str(word) for word in command]
        self._show(f"{shlex.join(words)} &")
        return self._running.enter_context(process(*words, log=log, cwd=self.folder))


@contextmanager
def rehearsal(
    folder: Path, data: Sequence[Path], show: Callable[[str], None] = lambda _: None
) -> Iterator[Rehearsal]:
    """Goes on inside the block."""
    with ExitStack() as running:
        yield Rehearsal(folder, data, running, show)


def free_port(in_a_row: int = 1) -> int:
    """The first of so many that nobody has, and that neither Linux (from 32768) nor Ray (10002 to
    19999) gives to its own."""
    for _ in range(1000):
        first = random.randrange(20_000, 32_000)
        with ExitStack() as tried, suppress(OSError):
            for port in range(first, first + in_a_row):
                tried.enter_context(socket.create_server(("", port)))
            return first
    raise UserError("no free port from 20000 to 32000")


@contextmanager
def process(*command: str, log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is running inside the block, and ended with its children after it."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=environment,
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
    """Wait for something that can only be seen by looking.

    Raises
    ------
    UserError: it has not happened in so many seconds; `log` is where it should be seen why.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise UserError(f"waited for {seconds:g} s in vain: {log} ends with\n{_end(log)}")
        time.sleep(0.1)


def family(started: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A program and all that it has started."""
    own = psutil.Process(started.pid)
    return [own, *own.children(recursive=True)]


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _deal(folder: Path) -> list[Path]:
    """A file for each device, of the default data."""
    settings = RunConfig().settled(".").data_settings(".")
    files = []
    for device in range(_DEVICES):
        _, images = client_data(settings, client=device, clients=_DEVICES)
        files.append(folder / f"own-{device + 1}.npz")
        pixels = images.images.permute(0, 2, 3, 1).numpy()
        np.savez_compressed(files[-1], images=pixels, labels=images.labels.numpy())
    return files


def main() -> None:
    """Rehearse, and say how to do it on machines of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run-config", default=_KEYS, metavar="KEYS", help=f'keys of the run ("{_KEYS}")'
    )
    options = parser.parse_args()
    began = time.monotonic()
    folder = (Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-devices").resolve()
    (folder / "data").mkdir(parents=True)

    def show(line: str) -> None:
        print(f"$ {line}", flush=True)

    with rehearsal(folder, _deal(folder / "data"), show) as running:
        keys = f'num-clients={_DEVICES} output-dir="{folder / "run"}" {options.run_config}'
        command = ["flwr", "run", ".", kits.CONNECTION, "--stream", "--run-config", keys]
        show(f"FLWR_HOME={shlex.quote(str(running.home))} {shlex.join(command)}")
        subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env={**os.environ, "FLWR_HOME": str(running.home)},
            check=False,
        )
    if not (folder / "run" / "summary.json").exists():
        raise SystemExit(f"the run failed: see above, and the logs in {folder}")
    print(f"{_DEVICES} devices, {time.monotonic() - began:.0f} s in all")
    print(f"page: {folder / 'run' / 'report.html'}")


if __name__ == "__main__":
    main()
