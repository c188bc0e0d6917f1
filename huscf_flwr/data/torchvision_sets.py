"""Data sets that torchvision reads and, where allowed, downloads."""

import string
from pathlib import Path

import numpy as np

from huscf_flwr.data.format import Arrays, Kind, numbered
from huscf_flwr.errors import UserError, cause

_CLOTHES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
TORCHVISION_SETS = {
    "mnist": Kind(numbered(10), 1),
    "fashion-mnist": Kind(_CLOTHES, 1),
    "kmnist": Kind(_KUZUSHIJI, 1),
    "emnist-letters": Kind(tuple(string.ascii_uppercase), 1),
    "cifar10": Kind(_THINGS, 3),
    "svhn": Kind(numbered(10), 3),
}
"""What they hold, by name."""


def read_torchvision_set(name: str, root: str, download: bool) -> tuple[Arrays, Arrays]:
    """A set's training images and its own test images.

    Parameters
    ----------
    name: one of `TORCHVISION_SETS`.
    root: folder of all sets, as torchvision lays them out.
    download: fetch the set to that folder unless it is there.

    Raises
    ------
    UserError: the set is not in the folder or damaged, or it cannot be downloaded.
    """
    from filelock import FileLock

    try:
        if download:
            Path(root).mkdir(parents=True, exist_ok=True)
            with FileLock(Path(root) / f".{name}.lock"):  # clients in other processes want it too
                for train in (True, False):
                    _read(name, root, train, download)
        return _read(name, root, True, False), _read(name, root, False, False)
    except Exception as error:  # torchvision raises whatever a damaged file leads it to
        reason = cause(error)
        if download:
            raise UserError(f"{name}: could not be downloaded to {root}: {reason}") from None
        if "download=True" in reason:  # torchvision's own advice, which is none here
            reason = "not found, or not whole,"
        else:
            reason = f"not readable ({reason})"
        raise UserError(
            f"{name}: {reason} in the folder {root} (data-root); to fetch it, set download=true, "
            "or give huscf evaluate --download"
        ) from None


def _read(name: str, root: str, train: bool, download: bool) -> Arrays:
    from torchvision import datasets

    if name == "svhn":
        svhn = datasets.SVHN(root, "train" if train else "test", download=download)
        return svhn.data.transpose(0, 2, 3, 1), svhn.labels
    if name == "cifar10":
        cifar = datasets.CIFAR10(root, train, download=download)
        return cifar.data, np.array(cifar.targets)
    if name == "emnist-letters":
        emnist = datasets.EMNIST(root, "letters", train=train, download=download)
        # Stored column by column, and labelled from 1.
        return emnist.data.numpy().transpose(0, 2, 1), emnist.targets.numpy() - 1
    by_name = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
    }
    found = by_name[name](root, train, download=download)
    return found.data.numpy(), found.targets.numpy()
