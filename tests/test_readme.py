"""README's commands, typed as they stand, one after the other in a fresh copy of the repository.

What would take long is bounded; what the copy cannot do as it stands is shown to be what else is
tested. A command that is neither fails.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BIN, PROJECT

from huscf_flwr.system.processes import end_left

TEXT = (PROJECT / "README.md").read_text()
COMMANDS = [line.strip() for line in re.findall(r"^    (\S.*)$", TEXT, flags=re.MULTILINE)]
_BRIEF = "num-server-rounds=2 local-epochs=1 utility-images=200"
BOUNDED = {
    "make demo": "make -n demo",
    "make test": "make -n test",
    "make devices-demo": "make -n devices-demo",
    "python3 -m venv": "true",  # the copy uses this environment
    "pip install": "pip check",
    "pytest": "pytest --collect-only -q tests/test_readme.py",
    "flwr run": f"{{}} --run-config '{_BRIEF}'",
    "huscf data": "python -c \"import numpy as n; n.savez('own.npz', images=n.zeros((20, 16, 16), "
    "'uint8'), labels=n.arange(20) % 2)\" && huscf data check own.npz",
    "huscf train": f"{{}} {_BRIEF}",
    "huscf compare": "huscf compare simulations/scenario-3-offline.toml --strategy huscf,fedgan "
    f"--seeds 1 {_BRIEF}",
}
"""What is typed in place of a command that begins like this; `{}` is the command."""


def typed(command: str) -> str:
    """What is typed for a command, without what is said of it."""
    command = re.sub(r"\s+#.*$", "", command)
    for begin, bounded in BOUNDED.items():
        if command.startswith(begin):
            return bounded.format(command)
    return command


@pytest.fixture
def ended(home: Path) -> Iterator[None]:
    """Ends what Flower leaves in the background."""
    yield
    end_left("FLWR_HOME", str(home))


@pytest.mark.timeout(900)
def test_readme_works_as_it_is_typed(tmp_path: Path, ended: None) -> None:
    copy = tmp_path / "huscf-flwr"
    left_out = shutil.ignore_patterns(".*", "runs", "kits", "__pycache__", "*.egg-info")
    shutil.copytree(PROJECT, copy, ignore=left_out)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        if command.startswith("export "):
            environment |= dict(word.split("=", 1) for word in shlex.split(command)[1:])
            continue
        done = subprocess.run(
            typed(command),
            shell=True,
            cwd=copy,
            env={**environment, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    code = f"{example}\nassert images.shape == (100, 1, 16, 16) and labels.shape == (100,)"
    subprocess.run(["python", "-c", code], cwd=copy, env=environment, check=True)
    assert (copy / "runs" / "latest" / "report.html").exists()
