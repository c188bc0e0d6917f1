"""The app as its users run it: `flwr run`, in simulation."""

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import images, write_npz
from programs import SMALL, flwr_run

from simulations.rehearsal import free_port, process

MINE = """\
from dataclasses import dataclass

from strategies import FedGAN


@dataclass(frozen=True)
class Settings:
    most: float = 2.0


class Mine(FedGAN):
    settings = Settings()

    def summary(self):
        return {**super().summary(), "most": self.settings.most}
"""


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


@pytest.mark.timeout(900)
def test_simulation_on_pools_of_one_and_two(home: Path, tmp_path: Path) -> None:
    """Six clients, and relative paths that mean the folder where the command was typed."""
    here = tmp_path / "here"
    here.mkdir()
    for seed, name in enumerate(("one", "two")):
        write_npz(here / f"{name}.npz", images(40, seed=seed))
    with superlink(home, "--simulation"):
        for workers, scoring in ((1, "standard"), (2, "authors")):
            keys = {"domains": "one.npz,two.npz", "scoring": scoring}
            log = flwr_run(
                here,
                {**SMALL, **keys, "output-dir": f"out-{workers}"},
                f"num-supernodes=6 client-resources-num-cpus=1 init-args-num-cpus={workers}",
            )
            results = here / f"out-{workers}"
            assert (results / "summary.json").exists(), log
            summary = json.loads((results / "summary.json").read_text())
            assert (summary["rounds"], summary["clients"]) == (2, 6)
            assert log.count(str(results)) == 2  # named first and last
            assert log.count("see them in turns") == 1
            assert (here / "runs" / "latest").resolve() == results
        for strategy in ("fedgan", "mdgan", "fedsplitgan", "pflgan", "hflgan"):
            keys = {"strategy": strategy, "domains": "one.npz", "output-dir": strategy}
            log = flwr_run(here, {**SMALL, **keys}, "num-supernodes=2 init-args-num-cpus=2")
            assert (here / strategy / "summary.json").exists(), log
            summary = json.loads((here / strategy / "summary.json").read_text())
            assert (summary["rounds"], summary["clients"]) == (2, 2)
        (here / "strategies").mkdir()  # where Ray looks first
        (here / "strategies" / "__init__.py").write_text("raise SystemExit('the wrong one')")
        (here / "strategies" / "mine.py").write_text(MINE)
        keys = {"strategy": "strategies.mine:Mine", "strategy-settings": "most=3"}
        log = flwr_run(here, {**SMALL, **keys, "domains": "one.npz", "output-dir": "mine"})
        assert (here / "mine" / "summary.json").exists(), log
        assert json.loads((here / "mine" / "summary.json").read_text())["most"] == 3
        log = flwr_run(here, {**SMALL, "domains": "one.npz", "cuts": "3-1-1-1"})
        assert "the run failed: cut gen_head=3 takes the middle block from the server" in log
        assert "Traceback" not in log
        log = flwr_run(here, {"widht": 3})
        assert "Invalid run configuration" in log  # Flower's own check, before ours
