"""What is handed on: a wheel, a source distribution, and Flower's bundle of the app."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import BIN, PROJECT


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ("--no-isolation", "--outdir", str(folder))
    run(sys.executable, "-m", "build", *options, str(PROJECT), cwd=folder)
    return folder


def test_an_installed_wheel_has_all_that_a_run_needs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert len(list(built.glob("*.tar.gz"))) == 1
    site = tmp_path / "site"
    options = ("--quiet", "--no-deps", "--target", str(site))
    run(sys.executable, "-m", "pip", "install", *options, str(wheel), cwd=tmp_path)
    environment = {"PYTHONPATH": str(site)}
    where = "import huscf_flwr, strategies, simulations; print(huscf_flwr.__file__)"
    assert str(site) in run(sys.executable, "-c", where, cwd=tmp_path, **environment)
    plan = ("plan", "--devices", "paper", "--clients", "7")
    assert "seconds" in run(
        sys.executable, "-m", "huscf_flwr.cli", *plan, cwd=tmp_path, **environment
    )


def test_flower_takes_the_app(tmp_path: Path) -> None:
    run(str(BIN / "flwr"), "build", "--app", str(PROJECT), cwd=tmp_path, FLWR_HOME=str(tmp_path))
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as files:
        names = set(files.namelist())
    assert {"pyproject.toml", "LICENSE", "huscf_flwr/client_app.py"} <= names
    assert {"strategies/huscf.py", "huscf_flwr/planning/paper.toml"} <= names
