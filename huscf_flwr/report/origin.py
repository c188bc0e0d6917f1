"""What a run was made with: the versions of packages, the commit of the code, and the machine."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import huscf_flwr
from huscf_flwr.system.machine import cores_here, memory_here, processor_here

_PACKAGES = ("flwr", "numpy", "scikit-learn", "torch")
_CODE = Path(huscf_flwr.__file__).parent
_SECONDS = 10.0  # that git has to answer


def origin(base_dir: str, device: str) -> dict[str, str]:
    """All of it by name; what cannot be known is not there.

    Parameters
    ----------
    base_dir: the folder where the run was started.
    device: the run key: GPUs count where the run may use one.
    """
    found = {"python": sys.version.split()[0], **{name: version(name) for name in _PACKAGES}}
    if (commit := _commit(base_dir)) is not None:
        found["commit"] = commit
    found |= {
        "processor": processor_here(),
        "cores": str(cores_here()),
        "memory": f"{memory_here() / 2**30:.1f} GiB",
    }
    if device != "cpu" and torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def _commit(base_dir: str) -> str | None:
    """The commit of the checkout that this code is from, and whether anything was changed since.

    Flower runs a copy of the code: it is from where the run was started, if it is the same there.
    """
    for root in (_CODE.parent, Path(base_dir)):
        if not (root / ".git").exists() or not _is_ours(root / _CODE.name):
            continue
        command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always"]
        try:
            done = subprocess.run(
                [*command, "--dirty=, and changes", "--exclude=*", "--abbrev=12"],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()
    return None


def _is_ours(package: Path) -> bool:
    """Whether a folder holds the code that runs here."""
    try:
        return all(
            path.read_bytes() == (package / path.relative_to(_CODE)).read_bytes()
            for path in _CODE.rglob("*.py")
        )
    except OSError:
        return False
