"""Where the runs of a comparison are trained: in this process, in several, or on a Ray cluster."""

import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, cause
from huscf_flwr.report.config_file import config_as_toml
from huscf_flwr.report.page import write_page
from huscf_flwr.system.cpu import cores
from huscf_flwr.system.processes import end_left
from simulations.engine import Engine

log = logging.getLogger("huscf_flwr.compare")

Failure = str | None
"""Why a run ended early, if it did."""

Workers = Callable[[Sequence[RunConfig], str], Iterator[tuple[int, Failure]]]
"""Train runs, with relative data paths below a folder; as each ends, its index and how."""

_PREFIX = "huscf: "
_FOLDER = "HUSCF_COMPARISON"
"""In the environment of the processes of a comparison: its folder."""


def in_this_process(runs: Sequence[RunConfig], base_dir: str) -> Iterator[tuple[int, Failure]]:
    """One after the other; see `Workers`."""
    for index, config in enumerate(runs):
        failure: Failure = None
        try:
            Engine(config, base_dir).run()
        except UserError as error:
            failure = str(error)
        except Exception as error:  # whatever it is, the other runs go on
            log.exception("%s", config.name)
            failure = f"{type(error).__name__}: {cause(error)}"
        yield index, failure


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine at a time, which share its cores; see `Workers`.

    What a run logs is in `<its folder>.log`. Those that a comparison in the same folder has left
    behind, because it was killed, are ended first.
    """

    jobs: int

    def __call__(self, runs: Sequence[RunConfig], base_dir: str) -> Iterator[tuple[int, Failure]]:
        for folder in {_marked(config, base_dir) for config in runs}:
            if left := end_left(_FOLDER, folder):
                log.info("%d runs of a comparison that was killed were going on: ended", left)
        threads = max(1, cores() // min(self.jobs, max(1, len(runs))))
        stopping = threading.Event()
        pool = ThreadPoolExecutor(self.jobs)
        try:
            found = {
                pool.submit(_in_process, config, base_dir, threads, stopping): index
                for index, config in enumerate(runs)
            }
            for future in as_completed(found):
                yield found[future], future.result()
        finally:
            stopping.set()
            pool.shutdown(cancel_futures=True)


def _in_process(
    config: RunConfig, base_dir: str, threads: int, stopping: threading.Event
) -> Failure:
    """Train in a process of its own, which is ended when it is time to stop."""
    output = Path(base_dir) / config.output_dir
    log_file = log_of(output)
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, log_file.open("wb") as lines:
            file = Path(folder) / "config.toml"
            file.write_text(config_as_toml(config, {}), encoding="utf-8")
            process = subprocess.Popen(
                [sys.executable, "-m", "huscf_flwr.cli", "train", "--config", str(file)],
                cwd=base_dir,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    _FOLDER: _marked(config, base_dir),
                },
                stdout=lines,
                stderr=subprocess.STDOUT,
            )
            try:
                while (code := _code(process)) is None and not stopping.is_set():
                    pass
            finally:
                if process.poll() is None:
                    process.terminate()
                code = process.wait()
        last = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    except OSError as error:
        return f"its process cannot be started: {cause(error)}"
    if code == 0:
        return None
    if code < 0:
        return f"its process was ended by signal {-code}"
    return last[0].removeprefix(_PREFIX) if last else f"its process ended with {code}"


def _marked(config: RunConfig, base_dir: str) -> str:
    """The folder of the comparison that a run belongs to."""
    return str((Path(base_dir) / config.output_dir).resolve().parent)


def _code(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code, or None after a moment in which it did not end."""
    try:
        return process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return None


def log_of(folder: Path) -> Path:
    """Where what a run logs is, if it is trained in a process of its own."""
    return folder.with_name(f"{folder.name}.log")


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster, on which each run is a task; see `Workers`.

    Its machines have this package, and at the same paths the data that runs name. What a run
    leaves comes back to its folder here.

    Attributes
    ----------
    address: of the cluster, as `ray.init` takes it.
    cpus, gpus: what a run is given.
    """

    address: str
    cpus: float = 1.0
    gpus: float = 0.0

    def __call__(self, runs: Sequence[RunConfig], base_dir: str) -> Iterator[tuple[int, Failure]]:
        import ray

        try:
            _reach(self.address)
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # ray has many for this
            raise UserError(f"--ray {self.address}: no cluster there: {cause(error)}") from None
        try:
            task = ray.remote(_packed)
            task = task.options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)
            threads = max(1, int(self.cpus))
            waiting = {
                task.remote(config, base_dir, threads): index for index, config in enumerate(runs)
            }
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                index = waiting.pop(done)
                try:
                    failure, content = ray.get(done)
                except ray.exceptions.RayError as error:
                    failure, content = f"its Ray task ended: {cause(error)}", b""
                try:
                    if content:
                        _unpack(content, runs[index], base_dir)
                except Exception as error:  # whatever it is, the other runs go on
                    failure = failure or f"what it left cannot be written here: {cause(error)}"
                yield index, failure
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens at `host:port`: Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _packed(config: RunConfig, base_dir: str, threads: int) -> tuple[Failure, bytes]:
    """Train on a machine of a cluster: why it ended early, if it did, and what it left."""
    if not Path(base_dir).is_dir():
        return f"{base_dir} is not on the machine {os.uname().nodename}", b""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "run"
        there_config = replace(config, output_dir=str(there))
        failure = _in_process(there_config, base_dir, threads, threading.Event())
        shutil.rmtree(there / "checkpoints", ignore_errors=True)  # large, and useless here
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for path in sorted(Path(folder).rglob("*")):
                archive.write(path, path.relative_to(folder))
        return failure, content.getvalue()


def _unpack(content: bytes, config: RunConfig, base_dir: str) -> None:
    """Put what a run left elsewhere to where it belongs."""
    folder = Path(base_dir) / config.output_dir
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(aside)
        log_of(Path(aside) / "run").replace(log_of(folder))
        there = Path(aside) / "run"
        if not there.is_dir():
            return
        text = (there / "config.toml").read_text(encoding="utf-8")
        output = json.dumps(config.output_dir, ensure_ascii=False)
        text = re.sub("^output-dir = .*$", lambda _: f"output-dir = {output}", text, flags=re.M)
        (there / "config.toml").write_text(text, encoding="utf-8")
        there.replace(folder)
    if (folder / "summary.json").exists():
        write_page(folder)  # which names its folder
