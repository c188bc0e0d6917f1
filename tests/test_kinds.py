"""What a run learns of its data before it begins: how many classes, how called, and colour."""

import logging
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import images, write_npz
from flwr.app import Context, RecordDict
from PIL import Image
from programs import SMALL

from huscf_flwr.cli import main
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.format import ImageFormat, Kind
from huscf_flwr.data.sources import kind_of, load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.report.files import read_run
from huscf_flwr.report.grids import save_images


def fruit(folder: Path, classes: int = 4, mode: str = "RGB") -> Path:
    """A folder with ten images of each of some kinds of fruit."""
    random = np.random.default_rng(0)
    for name in ("apple", "banana", "cherry", "date", "elderberry")[:classes]:
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("domains", "classes", "channels"),
    [
        ("digits,letters", 10, 1),
        ("emnist-letters,mnist", 26, 1),
        ("mnist,cifar10", 10, 3),
        ("grey.npz", 3, 1),
        ("colour.npz,grey.npz", 3, 3),
        ("fruit", 4, 3),
        ("ash,fruit", 5, 3),
        ("ash", 5, 1),
    ],
)
def test_classes_and_channels_are_those_of_the_data(
    domains: str, classes: int, channels: int, tmp_path: Path
) -> None:
    write_npz(tmp_path / "grey.npz", images(9))
    write_npz(tmp_path / "colour.npz", images(9, channels=3))
    fruit(tmp_path / "fruit")
    fruit(tmp_path / "ash", classes=5, mode="LA")
    found = RunConfig(domains=domains).settled(str(tmp_path))
    assert (found.num_classes, found.channels) == (classes, channels)
    said = RunConfig(domains=domains, num_classes=30, channels=1).settled(str(tmp_path))
    assert (said.num_classes, said.channels) == (30, 1)


def test_labels_have_names_where_the_data_has_them(tmp_path: Path) -> None:
    fruit(tmp_path / "fruit", classes=3)
    plain = images(9)
    pixels, labels = plain.images[:, 0].numpy(), plain.labels.numpy()
    np.savez(tmp_path / "named.npz", images=pixels, labels=labels, classes=["cat", "dog"])
    np.savez(tmp_path / "odd.npz", images=pixels, labels=labels, classes=[1, 2])
    config = RunConfig(domains="fruit,named.npz,letters,odd.npz")
    *kinds, odd = config.sources(str(tmp_path))
    assert [kind_of(source).classes for source in kinds] == [
        ("apple", "banana", "cherry"),
        ("cat", "dog", "2"),
        tuple("ABCDEFGHIJ"),
    ]
    with pytest.raises(UserError, match=r'odd\.npz: "classes" is int64 of shape'):
        kind_of(odd)


def test_what_images_are_is_known_without_reading_them(tmp_path: Path) -> None:
    """Which takes seconds of a large file; that its pixels are damaged is found with them."""
    path = write_npz(tmp_path / "own.npz", images(9, channels=3))
    content = bytearray(path.read_bytes())
    start = content.index(b"NUMPY") + 200
    content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    (source,) = RunConfig(domains="own.npz").sources(str(tmp_path))
    assert kind_of(source) == Kind(("0", "1", "2"), 3)
    with pytest.raises(UserError, match="file: Bad CRC"):
        load_domain(source, ImageFormat(16, 3, 3))


def test_a_run_of_coloured_folders_needs_no_keys_for_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    few_steps: None,
) -> None:
    """What it found is in its config.toml; its pictures have names; it says what is lacking."""
    fruit(tmp_path / "fruit")
    fruit(tmp_path / "more", classes=5)
    monkeypatch.chdir(tmp_path)
    run = {**SMALL, "num-classes": 0, "domains": "fruit,more", "num-clients": 2}
    keys = [f"{key}={value}" for key, value in {**run, "output-dir": "out"}.items()]
    assert main(["train", *keys]) == 0
    out = tmp_path / "out"
    left = tomllib.loads((out / "config.toml").read_text())
    assert (left["num-classes"], left["channels"]) == (5, 3)
    names = ["apple", "banana", "cherry", "date", "elderberry"]
    assert read_run(out).classes == {"fruit": [*names[:4], "4"], "more": names}
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(out / "report.html")
    assert "fruit has no images of class 4\n" in said.err
    assert re.search(r"round 1/2  [0-9.]+ s, about \d+ s to go  ", said.err)
    assert re.search(r"round 2/2  [0-9.]+ s  ", said.err)


def test_columns_of_grids_have_names(tmp_path: Path) -> None:
    """Above the images, which stay as they are; upright, where one is too long."""
    shown = images(6).images.float() / 127.5 - 1
    pictures = []
    for names in ([], ["a", "b", "c"], ["a", "banana", "c"]):
        save_images(shown, tmp_path / "grid.png", 3, names)
        pictures.append(np.asarray(Image.open(tmp_path / "grid.png")))
    plain, short, long = pictures
    assert len(plain) < len(short) < len(long)
    for named in (short, long):
        assert (named[-len(plain) :] == plain).all()
        head = named[: -len(plain)]
        assert all((part == 255).any() for part in np.array_split(head, 3, axis=1))


def test_clients_elsewhere_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And a node with data of its own says in its log which value would fit."""
    path = write_npz(tmp_path / "own.npz", images(30))
    unsettled = RunConfig(width=2).as_dict()
    for classes, error in ((2, "its own data cannot be used; its log says why"), (3, None)):
        context = Context(0, 1, {"data": str(path)}, RecordDict(), unsettled)
        client = WholeGANClient(context)
        found = client.get_properties({"num-classes": classes, "channels": 1})
        assert found.get("error") == error
    assert client.config.net_spec.num_classes == 3
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert line.endswith("num-classes=2 allows 0 to 1: set num-classes=3")
