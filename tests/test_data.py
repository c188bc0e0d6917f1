"""Where images come from, in which form they arrive, and which client gets which of them."""

import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import COLOUR, FORMAT, GREY, PROJECT, images, load, write_npz
from flwr.app import Context, RecordDict
from PIL import Image

from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.data.format import ImageFormat, to_format
from huscf_flwr.data.partition import (
    client_data,
    label_counts,
)
from huscf_flwr.data.sources import find_sources, load_domain, load_own
from huscf_flwr.data.textures import TEXTURES, render_textures
from huscf_flwr.errors import UserError

pytestmark = pytest.mark.usefixtures("few_steps")

# .npz files


def _arrays(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def _one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS)


def _text_for_labels(path: Path) -> None:
    np.savez(path, images=PIXELS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("labels", "0, 1, 0, 1")


def _damaged(after: bytes, distance: int) -> Callable[[Path], None]:
    """A compressed file with a wrong byte so far from where `after` begins."""

    def write(path: Path) -> None:
        np.savez_compressed(path, images=PIXELS, labels=LABELS)
        content = bytearray(path.read_bytes())
        content[content.index(after) + distance] = 99
        path.write_bytes(content)

    return write


PIXELS, LABELS = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
MEDMNIST = {
    f"{part}_{kind}": array
    for part in ("train", "val", "test")
    for kind, array in (("images", PIXELS), ("labels", LABELS[:, None].astype(np.uint8)))
}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (
            lambda path: path.write_bytes(b"not a zip"),
            "not a readable .npz file: File is not a zip",
        ),
        (lambda path: path.write_bytes(b""), "not a readable .npz file: File is not a zip"),
        (
            lambda path: path.symlink_to(path),
            "not a readable .npz file: Too many .* symbolic links$",
        ),
        (_one_array, "not a readable .npz file: File is not a zip"),
        (_text_for_labels, '"labels" in it is not an array'),
        (_damaged(b"images.npy", 30), "not a readable .npz file: Error -3 while decompressing"),
        (_damaged(b"PK\x01\x02", 10), "not a readable .npz file: That compression method is not"),
        (_arrays(images=PIXELS), 'lacks the array "labels"'),
        (_arrays(images=PIXELS / 255, labels=LABELS), "float64 .* must be uint8"),
        (_arrays(images=PIXELS[0], labels=LABELS), r"\(8, 8\); they must be"),
        (_arrays(images=PIXELS[..., None].repeat(2, 3), labels=LABELS), "2 channels"),
        (_arrays(images=PIXELS, labels=LABELS[:3]), r"integers of shape \(4,\)"),
        (_arrays(images=PIXELS, labels=LABELS * 1.0), "labels are float64"),
        (_arrays(images=PIXELS, labels=LABELS + 2), "labels from 2 to 3.* allows 0 to 2"),
        (_arrays(images=PIXELS, labels=np.array([None] * 4)), "not a readable .npz"),
        (_arrays(images=PIXELS[:0], labels=LABELS[:0]), "no images in it"),
        (_arrays(train_images=PIXELS, train_labels=LABELS), 'lacks the array "test_images"'),
        (
            _arrays(**{**MEDMNIST, "train_labels": np.zeros((4, 14), np.int64)}),
            r"labels are int64 of shape \(4, 14\)",
        ),
        (
            _arrays(**{**MEDMNIST, "val_images": PIXELS[:, :4]}),
            r"val_images of \(4, 4, 8\): they must differ in their number only",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "own.npz")
    with pytest.raises(UserError, match=rf"own.npz: .*{message}"):
        load("own.npz", tmp_path)


def test_files_of_any_size_and_colour_are_brought_to_the_runs_format(tmp_path: Path) -> None:
    write_npz(tmp_path / "colour.npz", images(15, size=20, channels=3))
    domain = load("colour.npz", tmp_path)
    assert domain.name == "colour"
    assert domain.train.images.shape == (12, 1, 16, 16)
    assert domain.test.images.shape == (3, 1, 16, 16)
    assert load("colour.npz", tmp_path, ImageFormat(24, 3, 3)).train.images.shape[1:] == (
        3,
        24,
        24,
    )


def test_resizing_keeps_grey_levels() -> None:
    assert to_format(np.full((5, 7, 9), 200, np.uint8), FORMAT).unique().tolist() == [200]
    primary = np.eye(3, dtype=np.uint8)[:, None, None] * np.uint8(240)
    assert to_format(primary, FORMAT).unique().tolist() == [80]
    assert to_format(primary, COLOUR)[1, :, 0, 0].tolist() == [0, 240, 0]


def test_all_parts_of_a_large_set_are_converted() -> None:
    grey = (np.arange(2500) % 251).astype(np.uint8)
    found = to_format(np.broadcast_to(grey[:, None, None], (2500, 4, 4)).copy(), FORMAT)
    assert found.shape == (2500, 1, 16, 16)
    assert found[:, 0, 5, 5].tolist() == grey.tolist()


def test_medmnist_keeps_its_test_images_out_and_trains_on_the_rest(tmp_path: Path) -> None:
    grey = {"train": 10, "val": 20, "test": 30}
    marked = {
        name: array + np.uint8(grey[name.split("_")[0]]) if "images" in name else array
        for name, array in MEDMNIST.items()
    }
    np.savez(tmp_path / "med.npz", **marked)
    domain = load("med.npz", tmp_path)
    assert domain.train.images[:, 0, 0, 0].tolist() == [10] * 4 + [20] * 4
    assert domain.train.labels.tolist() == LABELS.tolist() * 2
    assert domain.test.images[:, 0, 0, 0].tolist() == [30] * 4
    assert domain.test.labels.dtype == torch.int64


# The held-out part


def test_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    np.savez(tmp_path / "x.npz", images=np.zeros((62, 8, 8), np.uint8), labels=labels)
    domain = load("x.npz", tmp_path)
    assert torch.bincount(domain.test.labels).tolist() == [10, 2, 1]
    assert torch.bincount(domain.train.labels).tolist() == [40, 8, 1]


def test_training_and_held_out_images_are_all_there_are_and_shuffled(tmp_path: Path) -> None:
    marks = np.arange(60, dtype=np.uint8)
    pixels = np.broadcast_to(marks[:, None, None], (60, 16, 16))
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.repeat([0, 1, 2], 20))
    domain = load("x.npz", tmp_path)
    train, test = (part.images[:, 0, 0, 0].tolist() for part in (domain.train, domain.test))
    assert sorted(train + test) == marks.tolist()
    assert train != sorted(train)


def test_a_validation_part_is_a_fifth_of_the_training_images(tmp_path: Path) -> None:
    write_npz(tmp_path / "own.npz", images(100))
    test, (source,) = (
        load("own.npz", tmp_path),
        find_sources("own.npz", str(tmp_path), data_root="", download=False, validation=True),
    )
    chosen = load_domain(source, FORMAT)

    def all_of(part: LabelledImages) -> set[bytes]:
        return {image.numpy().tobytes() for image in part.images}

    assert all_of(chosen.train) | all_of(chosen.test) == all_of(test.train)
    assert (len(test.train), len(chosen.train), len(chosen.test)) == (79, 64, 15)
    assert RunConfig(score_on="validation").sources(".")[0].validation


def test_a_class_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "rare.npz", images=PIXELS[:4], labels=[0, 0, 1, 2])
    with pytest.raises(UserError, match="rare: training images but none held out of class 1, 2; "):
        load("rare.npz", tmp_path)
    np.savez(tmp_path / "med.npz", **{**MEDMNIST, "test_labels": np.zeros((4, 1), np.int64)})
    with pytest.raises(UserError, match="med: training images but none held out of class 1; "):
        load("med.npz", tmp_path)


def test_a_nodes_own_data_may_have_a_class_of_one_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "rare.npz", images=PIXELS[:4], labels=[0, 0, 1, 2])
    own = load_own(str(tmp_path / "rare.npz"), FORMAT)
    assert sorted(own.train.labels.tolist()) == [0, 1, 2]
    assert own.missing_classes == [1, 2]


# Folders


def write_image(path: Path, grey: int, size: tuple[int, int] = (9, 7), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)


def test_a_folder_of_classes_in_any_format_and_size(tmp_path: Path) -> None:
    for i, suffix in enumerate(("png", "bmp", "gif", "tiff", "webp")):
        write_image(tmp_path / "fruit" / "pear" / f"{i}.{suffix}", 40, (8 + i, 20 - i))
        mode = "RGB" if i else "RGBA"
        write_image(tmp_path / "fruit" / "apple" / f"{i}.png", 200, (5, 5 + i), mode)
    for stray in ("pear/.DS_Store", "pear/Thumbs.db", "apple/README.txt", "notes.csv"):
        (tmp_path / "fruit" / stray).write_bytes(b"x")
    (tmp_path / "fruit" / ".cache").mkdir()
    domain = load("fruit", tmp_path)
    assert (domain.name, len(domain.train), len(domain.test)) == ("fruit", 8, 2)
    by_class = {int(label): domain.train.images[domain.train.labels == label] for label in (0, 1)}
    assert by_class[0].unique().tolist() == [200]  # apple is before pear
    assert (by_class[1].float() - 40).abs().max() <= 2  # webp loses a little
    assert load("fruit", tmp_path, COLOUR).train.images.shape == (8, 3, 16, 16)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / "deep" / "a").mkdir(parents=True, exist_ok=True)
        deep = np.full((4, 4), 0x80FF, np.uint16)
        Image.fromarray(deep).save(tmp_path / "deep" / "a" / f"{i}.png")
    assert load("deep", tmp_path).train.images.unique().tolist() == [0x80]


def test_notmnist_is_a_folder_in_data_root(tmp_path: Path) -> None:
    for name in ("A/1.png", "A/2.png", "B/1.png", "B/2.png"):
        write_image(tmp_path / "sets" / "notmnist" / name, 9)
    domain = load("notmnist", tmp_path)
    assert (domain.name, len(domain.train), len(domain.test)) == ("notmnist", 2, 2)
    with pytest.raises(
        UserError,
        match=r"notmnist: nothing at .*/elsewhere/sets/notmnist; put there .* notMNIST_small",
    ):
        load("notmnist", tmp_path / "elsewhere")


def test_medmnists_files_are_in_data_root_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    np.savez(tmp_path / "sets" / "bloodmnist.npz", **MEDMNIST)
    assert load("bloodmnist", tmp_path).name == "bloodmnist"
    with pytest.raises(
        UserError, match=r"dermamnist: nothing at .*/sets/dermamnist.npz; put there .*medmnist.com"
    ):
        load("dermamnist", tmp_path)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    for i in range(9):
        write_image(tmp_path / "x" / "a" / f"{i}.png", 9)
    whole = (tmp_path / "x" / "a" / "0.png").read_bytes()
    (tmp_path / "x" / "a" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x" / "a" / "1.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"x: not readable as .*: a/0.png \([^/]*\), a/1.png \([^/]*\); remove"
    ):
        load("x", tmp_path)
    for i in range(2, 7):
        (tmp_path / "x" / "a" / f"{i}.png").write_text("notes")
    with pytest.raises(UserError, match=r" a/4.png \([^/]*\) and 2 more; remove or repair them"):
        load("x", tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png"], "x: no sub-folders; it must have one sub-folder of images for each class"),
        (["a/1.png", "b/1.txt", "c/.1.png"], "x: no images in b, c; it must have one sub-folder"),
        (
            ["test/a/1.png", "train/a/1.png"],
            "x: its sub-folder test has folders in it, as a; it must have one sub-folder of "
            r"images for each class \(of a layout with train and test, name one part: .*/x/test; ",
        ),
    ],
)
def test_a_folder_of_another_layout_is_named(
    files: list[str], message: str, tmp_path: Path
) -> None:
    for name in files:
        write_image(tmp_path / "1.png", 9)
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "1.png").rename(tmp_path / "x" / name)
    with pytest.raises(UserError, match=message):
        load("x", tmp_path)


# Built-in domains, and which is meant


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("digits", 1438, 359), ("letters", 1600, 400), ("textures", 1600, 400)],
)
def test_built_in_domains(name: str, train: int, test: int, tmp_path: Path) -> None:
    domain = load(name, tmp_path, GREY)
    assert (len(domain.train), len(domain.test)) == (train, test)
    assert domain.train.labels.unique().tolist() == list(range(10))
    assert domain.train.images.float().std() > 40


@pytest.mark.parametrize("size", [8, 16, 32])
def test_textures_are_always_the_same_at_any_size(size: int) -> None:
    pixels, labels = render_textures(size, count=40)
    again, _ = render_textures(size, count=40)
    assert pixels.shape == (40, size, size) and (pixels == again).all()
    assert Counter(labels.tolist()) == dict.fromkeys(range(len(TEXTURES)), 4)
    assert len({image.tobytes() for image in pixels}) == 40


@pytest.mark.parametrize(
    ("name", "along", "across"),
    [
        ("vertical stripes", (1, 0), (0, 1)),
        ("horizontal stripes", (0, 1), (1, 0)),
        ("rising stripes", (-1, 1), (1, 1)),
        ("falling stripes", (1, 1), (-1, 1)),
    ],
)
def test_stripes_run_as_their_names_say(
    name: str, along: tuple[int, int], across: tuple[int, int]
) -> None:
    pixels, labels = render_textures(32, count=200)
    found = pixels[labels == list(TEXTURES).index(name)].astype(int)

    def change(step: tuple[int, int]) -> float:
        moved = np.roll(found, step, axis=(1, 2))
        return float(np.abs(moved - found)[:, 1:-1, 1:-1].mean())

    assert change(across) > 3 * change(along)


def test_files_may_be_called_like_built_in_domains(tmp_path: Path) -> None:
    for name in ("digits", "mnist"):
        for i in range(2):
            write_image(tmp_path / name / "a" / f"{i}.png", 77)
        domain = load(f"./{name}", tmp_path)
        assert (domain.name, domain.train.images.unique().tolist()) == (name, [77])


def test_relative_paths_start_from_the_callers_folder(tmp_path: Path) -> None:
    config = RunConfig(domains="a/x.npz,/b/y,mnist,notmnist,letters", data_root="sets")
    sources = config.sources(str(tmp_path))
    assert [source.name for source in sources] == ["x", "y", "mnist", "notmnist", "letters"]
    sets = f"{tmp_path}/sets"
    expected = [f"{tmp_path}/a/x.npz", "/b/y", sets, f"{sets}/notmnist", ""]
    assert [source.path for source in sources] == expected


@pytest.mark.parametrize("form", ["npz", "medmnist", "folder"])
def test_a_node_may_have_own_data_of_any_form(form: str, tmp_path: Path) -> None:
    path, train = tmp_path / "own.npz", 8
    if form == "npz":
        write_npz(path, images(15))
        train = 12
    elif form == "medmnist":
        np.savez(path, **MEDMNIST)
    else:
        path = tmp_path / "own"
        for i in range(10):
            write_image(path / "a" / f"{i}.png", i)
    client = WholeGANClient(
        Context(
            run_id=0,
            node_id=1,
            node_config={"data": str(path)},
            state=RecordDict(),
            run_config=RunConfig(num_classes=3, channels=1, width=2).as_dict(),
        )
    )
    found = client.get_properties({})
    assert (found.get("error"), found["size"], found["domain"]) == (None, train, "")


def real_images() -> Path | None:
    """A folder with mnist-10k.npz and kmnist-10k.npz, where there is one."""
    folder = Path(os.environ.get("HUSCF_DATA", PROJECT.parent / "shared" / "data"))
    return folder if (folder / "mnist-10k.npz").exists() else None


@pytest.mark.skipif(real_images() is None, reason="HUSCF_DATA names no folder with mnist-10k.npz")
@pytest.mark.parametrize("partition", ["iid", "non-iid", "highly-non-iid", "dirichlet"])
def test_real_images_are_dealt_in_every_way(partition: str) -> None:
    config = RunConfig(domains="mnist-10k.npz,kmnist-10k.npz", partition=partition)
    dealt = config.settled(str(real_images())).data_settings(str(real_images()))
    counts = label_counts(dealt, 20)
    assert counts[::2].sum(axis=0).all() and counts[1::2].sum(axis=0).all()
    _, third = client_data(dealt, client=3, clients=20)
    assert torch.bincount(third.labels, minlength=10).tolist() == counts[3].tolist()
