"""Images as hospitals and labs have them: what is said of them, and what they become."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, kind_of, load_own

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (12, 10, 8), dtype=np.uint8)
BYTES[0, 0, :2] = 0, 255
NUMBERS = np.arange(12) % 3
TEXT = np.array(["benign", "cyst", "malignant"])[NUMBERS]
COLOURS = RANDOM.integers(0, 256, (12, 3, 10, 8), dtype=np.uint8)
ONE_HOT = np.eye(3)[NUMBERS]


def taken(path: Path, channels: int = 1) -> Domain:
    """What a run has of it: images of 8 pixels."""
    return load_own(str(path), ImageFormat(8, channels, 3))


def converted(tmp_path: Path, *words: str, out: str = "out.npz") -> dict[str, np.ndarray]:
    assert main(["data", "convert", *words, "--out", str(tmp_path / out)]) == 0
    taken(tmp_path / out, 3)
    with np.load(tmp_path / out) as file:
        return dict(file)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": BYTES / 255, "labels": NUMBERS}, BYTES),
        ({"images": (BYTES / 127.5 - 1).astype(np.float32), "labels": NUMBERS}, BYTES),
        ({"images": BYTES.astype(np.int64), "labels": NUMBERS}, BYTES),
        ({"images": BYTES * np.uint16(257), "labels": NUMBERS}, BYTES),
        ({"images": np.uint16(BYTES / 255 * 4095 + 0.5), "labels": NUMBERS}, BYTES),
        ({"images": BYTES - 1000.0, "labels": NUMBERS}, BYTES),
        ({"images": BYTES > 99, "labels": NUMBERS}, 255 * np.uint8(BYTES > 99)),
        ({"scans": COLOURS, "diagnosis": NUMBERS}, COLOURS.transpose(0, 2, 3, 1)),
        ({"images": BYTES[:, None], "labels": TEXT}, BYTES),
        ({"X": BYTES, "y": NUMBERS.astype(float), "age": np.ones(12)}, BYTES),
        ({"data": BYTES[..., None], "target": ONE_HOT}, BYTES),
        ({"images": BYTES, "labels": np.char.encode(TEXT)}, BYTES),
    ],
)
def test_arrays_of_all_kinds_become_what_a_run_takes(
    arrays: Mapping[str, np.ndarray], expected: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    made = converted(tmp_path, str(tmp_path / "own.npz"))
    assert (made["images"] == expected).all() and made["images"].dtype == np.uint8
    assert made["labels"].tolist() == NUMBERS.tolist()
    text = any(array.dtype.kind in "US" for array in arrays.values())
    assert ("classes" in made) == text
    if text:
        assert made["classes"].tolist() == ["benign", "cyst", "malignant"]


def test_a_part_to_test_on_stays_one(tmp_path: Path) -> None:
    train = {"x_train": BYTES / 255, "y_train": TEXT}
    np.savez(tmp_path / "own.npz", **train, x_test=BYTES[:3] / 255, y_test=TEXT[:3])
    converted(tmp_path, str(tmp_path / "own.npz"), out="one.npz")
    domain = taken(tmp_path / "one.npz")
    assert (len(domain.train), len(domain.test)) == (12, 3)
    for part, count in (("train", 4), ("Test", 2)):
        for name in ("a", "b"):
            (tmp_path / "scans" / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(BYTES[number, : 8 + number])
                image.save(tmp_path / "scans" / part / name / f"{number}.png")
    made = converted(tmp_path, str(tmp_path / "scans"), "--image-size", "8", out="two.npz")
    assert made["train_images"].shape == (8, 8, 8) and made["classes"].tolist() == ["a", "b"]
    domain = taken(tmp_path / "two.npz")
    assert (len(domain.train), len(domain.test)) == (8, 4)


def test_order_and_range_are_what_one_says(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=BYTES, labels=TEXT)
    own = str(tmp_path / "own.npz")
    made = converted(tmp_path, own, "--classes", "cyst,benign,malignant", "--range", "100,200")
    assert made["labels"][:3].tolist() == [1, 0, 2]
    (source,) = RunConfig(domains="out.npz").sources(str(tmp_path))
    assert kind_of(source).classes == ("cyst", "benign", "malignant")
    assert (made["images"][BYTES >= 200] == 255).all()
    assert (made["images"][BYTES <= 100] == 0).all()
    again = converted(tmp_path, str(tmp_path / "out.npz"), out="again.npz")
    assert {name: array.tolist() for name, array in again.items()} == {
        name: array.tolist() for name, array in made.items()
    }


def test_files_of_more_than_eight_bits_are_scaled_together(tmp_path: Path) -> None:
    """A run refuses 32 bits, and would see 12 bits in 16 as too dark."""
    for kind, values in (("I;16", BYTES * np.uint16(16)), ("F", BYTES.astype(np.float32) / 255)):
        folder = tmp_path / kind[0]
        for name in "ab":
            (folder / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(values[number]).save(folder / name / f"{number}.tif")
        made = converted(tmp_path, str(folder))
        assert abs(made["images"][:3].astype(int) - BYTES[:3]).max() <= 1
        assert main(["data", "check", str(folder)]) == 0


@pytest.mark.parametrize(
    ("arrays", "words", "message"),
    [
        (
            {"a": BYTES, "b": BYTES, "c": NUMBERS},
            [],
            r"own\.npz: which arrays are images",
        ),
        (
            {"a": BYTES, "b": BYTES, "c": NUMBERS},
            ["--images", "d"],
            r'no array "d" in it, but',
        ),
        (
            {"images": BYTES, "labels": np.array(["a", None] * 6)},
            [],
            r"save text as \.astype",
        ),
        ({"images": BYTES, "labels": NUMBERS - 1}, [], "labels from -1: --classes LIST says"),
        ({"images": BYTES, "labels": TEXT}, ["--classes", "benign,cyst"], "lacks malignant"),
        ({"images": BYTES * np.nan, "labels": TEXT}, [], "no finite numbers"),
        ({"images": BYTES, "labels": TEXT}, ["--range", "9"], "--range 9: must be two numbers"),
        ({"images": COLOURS[:, :2], "labels": TEXT}, [], "must be numbers of shape"),
    ],
)
def test_what_cannot_be_converted_is_said_in_a_line(
    arrays: Mapping[str, np.ndarray],
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    out = tmp_path / "out.npz"
    assert main(["data", "convert", str(tmp_path / "own.npz"), *words, "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("huscf: ") and re.search(message, line)
    assert not out.exists()


def test_a_check_says_what_is_there_and_which_keys_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("good.npz", images=COLOURS.transpose(0, 2, 3, 1), labels=NUMBERS)
    assert main(["data", "check", "good.npz"]) == 0
    said = capsys.readouterr().out
    assert "12 images, 10 x 8 pixels (height x width), colour, uint8 from" in said
    assert re.findall(r"^ +(\d)  +(\d+)  (\d)$", said, re.MULTILINE) == [
        (str(label), "4", str(label)) for label in range(3)
    ]
    line = "    domains=good.npz image-size=16 channels=3 num-classes=3\n"
    assert said.endswith(f"a run takes it as it is, with\n{line}")

    np.savez("odd.npz", images=BYTES / 255, labels=2 * NUMBERS)
    assert main(["data", "check", "odd.npz"]) == 0
    said = capsys.readouterr().out
    assert "\n- no images of class 1, 3: --classes" in said
    assert "    huscf data convert odd.npz --out FILE.npz\n" in said
    assert said.endswith("    domains=FILE.npz image-size=16 channels=1 num-classes=5\n")


def test_errors_name_the_command_that_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("floats.npz", images=BYTES / 255, labels=NUMBERS)
    np.savez("text.npz", images=BYTES, labels=TEXT)
    np.savez("names.npz", x=BYTES, y=NUMBERS)
    for name in ("floats.npz", "text.npz", "names.npz"):
        assert main(["train", f"domains={name}"]) == 1
        assert f"huscf data convert {tmp_path}/{name} --out" in capsys.readouterr().err
