"""torchvision's sets: read from a folder, downloaded only where that is allowed."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOUR, GREY, load

from huscf_flwr.data.sources import Source, load_domain
from huscf_flwr.errors import UserError

pytestmark = pytest.mark.usefixtures("few_steps")


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST: bytes with their shape before them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(raw: Path, first: str = "train", second: str = "t10k") -> None:
    """Three images of each of classes 1 to 3, and two of each held out; left edges white."""
    for part, count in ((first, 9), (second, 6)):
        pixels = np.zeros((count, 28, 28))
        pixels[:, :, :4] = 255
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 3 + 1)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_mnist_and_its_kin_are_read_from_data_root(name: str, folder: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "sets" / folder / "raw")
    domain = load(name, tmp_path, GREY)
    assert (domain.name, len(domain.train), len(domain.test)) == (name, 9, 6)
    assert domain.test.labels.tolist() == [1, 2, 3, 1, 2, 3]
    with pytest.raises(UserError, match=f"^{name}: labels from 1 to 3, but num-classes=3 allows"):
        load(name, tmp_path)
    assert domain.train.images[0, 0].float().mean(dim=0).argmax() == 0


def test_emnist_letters_count_from_zero_and_stand_upright(tmp_path: Path) -> None:
    parts_ = ("emnist-letters-train", "emnist-letters-test")
    write_mnist(tmp_path / "sets" / "EMNIST" / "raw", *parts_)
    domain = load("emnist-letters", tmp_path)
    assert domain.train.labels.unique().tolist() == [0, 1, 2]
    rows = domain.train.images[0, 0].float().mean(dim=1)
    assert rows[0] == 255 and rows[-1] == 0  # stored as columns: the left edge is the top


def test_svhn_has_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    from torchvision.datasets import SVHN

    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    (tmp_path / "sets").mkdir()
    pixels = np.zeros((32, 32, 3, 4), np.uint8)
    pixels[:, :, 2] = 200
    for part in ("train", "test"):
        labels = np.array([[10], [1], [2], [10]], np.uint8)
        savemat(tmp_path / "sets" / f"{part}_32x32.mat", {"X": pixels, "y": labels})
    domain = load("svhn", tmp_path, COLOUR)
    assert domain.test.labels.tolist() == [0, 1, 2, 0]
    assert domain.train.images[3, :, 7, 7].tolist() == [0, 0, 200]


def test_cifar10_has_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10, cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    pixels[:, 1] = 200
    entry = {"data": pixels.reshape(2, -1), "labels": [4, 7]}
    (tmp_path / "sets" / CIFAR10.base_folder).mkdir(parents=True)
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], "")):
        stored = {"label_names": []} if "meta" in name else entry
        (tmp_path / "sets" / CIFAR10.base_folder / name).write_bytes(pickle.dumps(stored))
    domain = load("cifar10", tmp_path, COLOUR)
    assert (len(domain.train), len(domain.test)) == (10, 2)
    assert domain.test.labels.tolist() == [4, 7]
    assert domain.train.images[0, :, 7, 7].tolist() == [0, 200, 0]


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "kmnist", "emnist-letters", "cifar10", "svhn"]
)
def test_a_missing_set_is_named_with_its_folder_and_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(name, tmp_path)
    assert str(caught.value) == (
        f"{name}: not found, or not whole, in the folder {tmp_path}/sets (data-root); to fetch "
        "it, set download=true, or give huscf evaluate --download"
    )
    assert not (tmp_path / "sets").exists()


def test_a_damaged_set_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "sets" / "MNIST" / "raw"
    write_mnist(raw)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^mnist: not readable \(.+\) in the folder .*set download=true"
    ):
        load("mnist", tmp_path)


def test_sets_are_fetched_only_where_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    def download(self: MNIST) -> None:
        write_mnist(Path(self.raw_folder))

    monkeypatch.setattr(MNIST, "download", download)
    with pytest.raises(UserError, match="to fetch it, set download=true"):
        load("mnist", tmp_path)
    allowed = Source("mnist", str(tmp_path / "sets"), "torchvision", download=True)
    assert len(load_domain(allowed, GREY).train) == 9
    assert len(load("mnist", tmp_path, GREY).train) == 9


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    def download(self: MNIST) -> None:
        raise RuntimeError(
            "Error downloading train-images-idx3-ubyte.gz:\nTried x, got:\nno route"
        )

    monkeypatch.setattr(MNIST, "download", download)
    allowed = Source("mnist", str(tmp_path), "torchvision", download=True)
    with pytest.raises(
        UserError, match=r"mnist: could not be downloaded to .*: Error .* no route"
    ) as caught:
        load_domain(allowed, GREY)
    assert "\n" not in str(caught.value)
