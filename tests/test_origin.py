"""What a run says of the code and the machine that it was made with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from huscf_flwr.report import origin as module
from huscf_flwr.report.origin import origin

GIT = shutil.which("git")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_the_commit_is_that_of_the_code_which_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower runs a copy elsewhere: then it is that of where the run was started."""
    copy, checkout = tmp_path / "copy" / "huscf_flwr", tmp_path / "checkout"
    for package in (copy, checkout / "huscf_flwr"):
        package.mkdir(parents=True)
        (package / "code.py").write_text("1\n")
    monkeypatch.setattr(module, "_CODE", copy)
    assert "commit" not in origin(str(checkout), "cpu")
    git(checkout, "init")
    assert "commit" not in origin(str(checkout), "cpu")  # there is none yet
    (checkout / "other").write_text("1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert origin(str(checkout), "cpu")["commit"] == commit
    (checkout / "other").write_text("2\n")
    assert origin(str(checkout), "cpu")["commit"] == f"{commit}, and changes"
    (copy / "code.py").write_text("2\n")
    assert "commit" not in origin(str(checkout), "cpu")


def test_without_git_a_run_says_all_but_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "huscf_flwr").mkdir()
    monkeypatch.setattr(module, "_CODE", tmp_path / "huscf_flwr")
    monkeypatch.setenv("PATH", "")
    found = origin(str(tmp_path), "cpu")
    assert list(found) == [
        *("python", "flwr", "numpy", "scikit-learn", "torch"),
        *("processor", "cores", "memory"),
    ]
    assert all(found.values()) and int(found["cores"]) > 0
