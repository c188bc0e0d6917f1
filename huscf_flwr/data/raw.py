"""Labelled images as people have them, read as they are: any numbers, names, order of axes.

What a run takes is stricter, see `npz` and `folder`; `conversion` makes it of this.
"""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from huscf_flwr.data.folder import class_files, listed, raw_pixels
from huscf_flwr.data.npz import CLASSES, IMAGES, LABELS, PARTS
from huscf_flwr.errors import UserError, cause, no_such_file, some

_IMAGES, _LABELS = ("image", "img", "x"), ("label", "target", "y")
"""Words by which arrays are told where there are several that could be meant."""


@dataclass(frozen=True)
class Raw:
    """Images (H, W) or (H, W, C) of any number type and size; integers or text (n,)."""

    images: list[np.ndarray]
    labels: np.ndarray


def read_raw(path: str, images: str = "", labels: str = "") -> dict[str, Raw]:
    """What is in an .npz file or a folder, by part: train, val and test, or "" where it has none.

    Parameters
    ----------
    path: an .npz file with arrays of any names; or a folder with a sub-folder for each class, or
        with such folders named train, val and test.
    images, labels: names of the two arrays; empty: as they look, and as they are called.

    Raises
    ------
    UserError: nothing that can be read, or it is not plain which arrays are meant.
    """
    if Path(path).is_dir():
        return _parts_of_folder(path)
    if not Path(path).exists():
        raise no_such_file(path)
    try:
        zipfile.ZipFile(path).close()  # numpy would take what is none for a pickle
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _array(path, file, name) for name in file}
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file leads them to
        raise UserError(f"{path}: not a readable .npz file: {cause(error)}") from None
    if images or labels:
        return {"": _raw(path, arrays, images or IMAGES, labels or LABELS)}
    return _parts_of_arrays(path, arrays)


def _array(path: str, file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return np.asarray(file[name])
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise UserError(
            f'{path}: "{name}" holds Python objects, which are not read, as that could run code: '
            "save text as .astype(str), numbers as an array of numbers"
        ) from None


def _parts_of_folder(path: str) -> dict[str, Raw]:
    folders, _ = listed(Path(path))
    split = folders and all(folder.name.lower() in PARTS for folder in folders)
    parts = {folder.name.lower(): str(folder) for folder in folders} if split else {"": path}
    return {part: _of_folder(folder) for part, folder in parts.items()}


def _of_folder(path: str) -> Raw:
    images: list[np.ndarray] = []
    labels: list[str] = []
    unreadable: list[str] = []
    for name, files in class_files(path).items():
        for file in files:
            try:
                images.append(raw_pixels(file))
                labels.append(name)
            except Exception as error:  # PIL's decoders raise whatever a broken file leads them to
                unreadable.append(f"{file.relative_to(path)} ({cause(error)})")
    if unreadable:
        raise UserError(f"{path}: not readable as images: {some(unreadable)}; repair them")
    return Raw(images, np.array(labels))


def _parts_of_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    named = {name: array for name, array in arrays.items() if name != CLASSES}
    for part in dict.fromkeys(map(_part, named)):
        own = {name: array for name, array in named.items() if _part(name) == part}
        pictures = _meant((name for name, array in own.items() if array.ndim >= 3), _IMAGES)
        if pictures is None:
            continue
        flat = {name: array for name, array in own.items() if array.ndim in (1, 2)}
        count = len(own[pictures])
        labels = _meant((name for name, array in flat.items() if len(array) == count), _LABELS)
        if labels is not None:
            found[part] = _raw(path, arrays, pictures, labels)
    if not found or ("" in found and len(found) > 1):
        shapes = some([f"{name} {array.shape}" for name, array in arrays.items()])
        raise UserError(
            f"{path}: which arrays are images and labels, of {shapes}? --images NAME and --labels "
            "NAME say it"
        )
    return found


def _part(name: str) -> str:
    return next((part for part in PARTS if part in name.lower()), "")


def _meant(names: Iterable[str], words: tuple[str, ...]) -> str | None:
    """The only one of these names, or the only one with such a word in it."""
    every = list(names)
    likely = [name for name in every if any(word in name.lower() for word in words)]
    for chosen in (every, likely):
        if len(chosen) == 1:
            return chosen[0]
    return None


def _raw(path: str, arrays: Mapping[str, np.ndarray], images: str, labels: str) -> Raw:
    for name in (images, labels):
        if name not in arrays:
            raise UserError(f'{path}: no array "{name}" in it, but {some(list(arrays))}')
    names = arrays.get(CLASSES, np.empty(0, "U"))
    found = _plain(path, labels, arrays[labels])
    if found.dtype.kind == "i" and 0 <= found.min(initial=0) <= found.max(initial=0) < len(names):
        found = names[found]
    raw = Raw(_pictures(path, images, arrays[images]), found)
    if len(raw.images) != len(raw.labels):
        raise UserError(f"{path}: {len(raw.images)} {images}, but {len(raw.labels)} {labels}")
    return raw


def _pictures(path: str, name: str, images: np.ndarray) -> list[np.ndarray]:
    """Channels last, and none that are no colour."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.ndim not in (3, 4) or channels not in (1, 3, 4) or images.dtype.kind not in "buif":
        raise UserError(
            f'{path}: "{name}" is {images.dtype} of shape {images.shape}: images must be numbers '
            "of shape (n, H, W), or with 1, 3 or 4 channels before or behind H and W"
        )
    if channels == 4:  # the last one says what is transparent
        images = images[..., :3]
    return list(images[..., 0] if images.ndim == 4 and channels == 1 else images)


def _plain(path: str, name: str, labels: np.ndarray) -> np.ndarray:
    """Integers or text (n,), of columns and of one-hot rows, too."""
    if labels.ndim == 2 and labels.shape[1] > 1 and _one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.ndim != 1 or labels.dtype.kind not in "buiU":
        raise UserError(
            f'{path}: "{name}" is {labels.dtype} of shape {labels.shape}: labels must be whole '
            "numbers or text, one for each image, or a row with a single 1 in it"
        )
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _one_hot(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "buif" and bool(
        np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    )
