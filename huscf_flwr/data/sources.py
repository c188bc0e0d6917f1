"""Domains: labelled images of one kind, with a part held out.

A domain is named by a built-in name, by a set in the folder `data-root`, or by the path of an .npz
file or a folder. Whatever it is read from, its images are brought to the run's size and
channels here.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.data.folder import folder_kind, read_folder
from huscf_flwr.data.format import Arrays, ImageFormat, Kind, numbered, to_format
from huscf_flwr.data.letters import LETTERS, render_coloured_letters, render_letters
from huscf_flwr.data.npz import class_names, outline_npz, read_npz
from huscf_flwr.data.textures import TEXTURES, render_textures
from huscf_flwr.data.torchvision_sets import TORCHVISION_SETS, read_torchvision_set
from huscf_flwr.errors import UserError, did_you_mean, some

_HELD_OUT = 0.2
_OF_MEDMNIST = "the file of that name and 28 pixels that medmnist.com links to"
_BY_HAND = {
    "notmnist": (
        "notmnist",
        "the folder in notMNIST_small.tar.gz by Yaroslav Bulatov (yaroslavvb.com), renamed",
    ),
    "bloodmnist": ("bloodmnist.npz", _OF_MEDMNIST),
    "dermamnist": ("dermamnist.npz", _OF_MEDMNIST),
}
"""Sets that nothing here downloads: their place in the folder `data-root`, and their origin."""


def _digits(size: int) -> Arrays:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), labels


_RENDERERS: dict[str, Callable[[int], Arrays]] = {
    "digits": _digits,
    "letters": render_letters,
    "coloured-letters": render_coloured_letters,
    "textures": render_textures,
}
_KINDS = {
    "digits": Kind(numbered(10), 1),
    "letters": Kind(tuple(LETTERS), 1),
    "coloured-letters": Kind(tuple(LETTERS), 3),
    "textures": Kind(tuple(TEXTURES), 1),
    **TORCHVISION_SETS,
}
BUILT_IN = tuple(_RENDERERS)
NAMED = (*TORCHVISION_SETS, *_BY_HAND)
"""Sets in the folder `data-root`."""


@dataclass(frozen=True)
class Source:
    """Where a domain's images come from.

    Attributes
    ----------
    name: what outputs call the domain.
    path: the .npz file or the folder with the images; of torchvision's sets the folder of all.
    kind: what finds the images: their name, torchvision, or the path alone.
    download: whether torchvision may fetch them.
    validation: whether what is held out is a fifth of the training images, in place of the test
        images, which are not touched then.
    """

    name: str
    path: str = ""
    kind: Literal["built-in", "torchvision", "files"] = "built-in"
    download: bool = False
    validation: bool = False

    def __str__(self) -> str:
        """How messages call it."""
        return self.path if self.kind == "files" else self.name


@dataclass(frozen=True)
class Domain:
    """A domain's images, split once and for all."""

    name: str
    train: LabelledImages
    test: LabelledImages

    @functools.cached_property
    def missing_classes(self) -> list[int]:
        """Labels, in order, of training images of which none is held out to score them."""
        found: list[int] = np.setdiff1d(self.train.labels, self.test.labels).tolist()
        return found


def split_names(domains: str) -> list[str]:
    """What the run key `domains` lists; raises `UserError` if that is nothing or not distinct."""
    names = [name.strip() for name in domains.split(",") if name.strip()]
    if not names:
        raise UserError(f'domains="{domains}" names no domain')
    if len({_files(name).name for name in names}) < len(names):
        raise UserError(f'domains="{domains}" names a domain twice: file names must differ')
    return names


def find_sources(
    domains: str, base_dir: str, *, data_root: str, download: bool, validation: bool = False
) -> tuple[Source, ...]:
    """The sources in the run key `domains`; nothing is read yet.

    Parameters
    ----------
    domains: names or paths, comma separated.
    base_dir: folder that relative paths, `data_root` included, start from.
    data_root: folder of the sets in `NAMED`.
    download: whether torchvision may fetch what is not there.
    validation: see `Source`.
    """

    def find(name: str) -> Source:
        root = Path(base_dir) / data_root
        if name in BUILT_IN:
            return Source(name)
        if name in TORCHVISION_SETS:
            return Source(name, str(root), "torchvision", download)
        if name in _BY_HAND:
            return _files(str(root / _BY_HAND[name][0]))
        return _files(str(Path(base_dir) / name))

    return tuple(replace(find(name), validation=validation) for name in split_names(domains))


@functools.lru_cache(maxsize=32)
def kind_of(source: Source) -> Kind:
    """What a domain's images are, before a run brings them to its format.

    Raises
    ------
    UserError: nothing to read, or a malformed file.
    """
    if source.kind != "files":
        return _KINDS[source.name]
    if _is_folder(source):
        return folder_kind(source.path)
    parts = outline_npz(source.path)
    images = parts[0][0]
    named = Kind(class_names(source.path), 1 if images.ndim == 3 else images.shape[3])
    count = max(int(labels.max(initial=-1)) + 1 for _, labels in parts)
    return replace(named, classes=named.names(count))


@functools.lru_cache(maxsize=8)
def read_domain(source: Source, image_format: ImageFormat) -> Domain:
    """Read or render a domain and hold out a part of it, the same one every time.

    What has a test part of its own has that held out, anything else a random fifth of each class:
    none of a class with one image. With `source.validation`, a fifth of what is left after that.

    Raises
    ------
    UserError: nothing to read, a malformed file, or a label outside the classes.
    """
    found, test = _read(source, image_format)
    if not len(found[1]):
        raise UserError(f"{source}: no images in it")
    train, test = (found, test) if test is not None else _hold_out(found)
    if source.validation:
        train, test = _hold_out(train)
    return Domain(
        source.name,
        _labelled(source, train, image_format),
        _labelled(source, test, image_format),
    )


def load_domain(source: Source, image_format: ImageFormat) -> Domain:
    """As `read_domain`, for training: every class must be one that can be scored.

    Raises
    ------
    UserError: as `read_domain`; or a class has training images and none held out.
    """
    domain = read_domain(source, image_format)
    lacking = domain.missing_classes
    if lacking:
        names = kind_of(source).names(image_format.num_classes)
        raise UserError(
            f"{source.name}: training images but none held out of class "
            f"{some([names[label] for label in lacking])}; a class needs 2 images, or one in the "
            "test part where there is one"
        )
    return domain


def load_own(path: str, image_format: ImageFormat, *, validation: bool = False) -> Domain:
    """The images of a node that has its own, in an .npz file or a folder; see `Source`.

    Raises
    ------
    UserError: as `read_domain`.
    """
    return read_domain(replace(_files(path), validation=validation), image_format)


def all_own(path: str, image_format: ImageFormat, *, validation: bool = False) -> Domain:
    """As `load_own`, with all that is not a test part of its own to train on, and none held out.

    Which are held out depends on labels, and their number with it.
    """
    source = _files(path)
    found, _ = _read(source, image_format)
    train = _labelled(source, found, image_format)
    return Domain(source.name, train, train.select(torch.empty(0, dtype=torch.long)))


def _files(path: str) -> Source:
    name = Path(path).stem if path.endswith(".npz") else Path(path).name
    return Source(name, path, "files")


def _read(source: Source, image_format: ImageFormat) -> tuple[Arrays, Arrays | None]:
    """All images of a source, or where it has a test part, its training images and those."""
    if source.kind == "built-in":
        return _RENDERERS[source.name](image_format.size), None
    if source.kind == "torchvision":
        return read_torchvision_set(source.name, source.path, source.download)
    if _is_folder(source):
        return read_folder(source.path, image_format), None
    return read_npz(source.path)


def _is_folder(source: Source) -> bool:
    """Of files: whether it is a folder, not an .npz file; raises `UserError` if neither."""
    # os.path says no where a folder above may not be entered; Path raises.
    if source.name in _BY_HAND and not os.path.exists(source.path):
        raise UserError(
            f"{source.name}: nothing at {source.path}; put there {_BY_HAND[source.name][1]}"
        )
    if os.path.isdir(source.path):
        return True
    if source.path.endswith(".npz"):
        return False
    known = (*BUILT_IN, *NAMED)
    raise UserError(
        f'domain "{source.name}":{did_you_mean(source.name, known)} no folder or .npz file '
        f"{source.path}; known by name are {', '.join(known)}"
    )


def _hold_out(found: Arrays) -> tuple[Arrays, Arrays]:
    """Shuffled: the images to keep, and a fifth of each class, at least one of two.

    The only image of a class is kept.
    """
    images, labels = found
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        count = max(1, round(len(of_class) * _HELD_OUT)) if len(of_class) > 1 else 0
        held_out[of_class[:count]] = True
    kept, rest = order[~held_out[order]], order[held_out[order]]
    return (images[kept], labels[kept]), (images[rest], labels[rest])


def _labelled(source: Source, arrays: Arrays, image_format: ImageFormat) -> LabelledImages:
    images, labels = arrays
    if labels.size and not 0 <= labels.min() <= labels.max() < image_format.num_classes:
        raise UserError(
            f"{source}: labels from {labels.min()} to {labels.max()}, but "
            f"num-classes={image_format.num_classes} allows 0 to {image_format.num_classes - 1}: "
            + (
                f"set num-classes={labels.max() + 1}"
                if labels.min() >= 0
                else "number them from 0"
            )
        )
    return LabelledImages(
        to_format(images, image_format), torch.from_numpy(labels.astype(np.int64))
    )
