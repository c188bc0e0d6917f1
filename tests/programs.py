"""Real programs for tests: devices with their server, and runs of the app."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from conftest import BIN, PROJECT, images, write_npz

from simulations.rehearsal import Rehearsal, rehearsal

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


@contextmanager
def deployment(folder: Path, nodes: int) -> Iterator[Rehearsal]:
    """A server and devices with secret-<node>.npz, from their kits; runs inside the block."""
    data = [folder / f"secret-{node}.npz" for node in range(1, nodes + 1)]
    for node, path in enumerate(data, 1):
        write_npz(path, images(40, seed=node))
    with rehearsal(folder, data) as running:
        yield running


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
