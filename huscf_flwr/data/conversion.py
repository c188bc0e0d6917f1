"""From images as people have them to those that a run takes: 8 bits, one size, numbered labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from huscf_flwr.data.format import ImageFormat, numbered, to_format
from huscf_flwr.data.npz import CLASSES, IMAGES, LABELS, PARTS
from huscf_flwr.data.raw import Raw
from huscf_flwr.errors import UserError, some
from huscf_flwr.system.files import replacing


@dataclass(frozen=True)
class Look:
    """What is to be known of images before they are converted.

    Attributes
    ----------
    counts: how many there are of each class, by its name; by label.
    sizes: heights and widths.
    channels: 3 if any has colour, else 1.
    kinds: number types.
    values: the lowest and the highest.
    span: what becomes black and white, see `span_of`.
    """

    counts: dict[str, int]
    sizes: set[tuple[int, int]]
    channels: int
    kinds: set[str]
    values: tuple[float, float]
    span: tuple[float, float]


def look(parts: Mapping[str, Raw], classes: Sequence[str] = ()) -> Look:
    """Look at all images of all parts.

    Raises
    ------
    UserError: there are none, labels cannot be numbered, or a value is no finite number.
    """
    images = [image for part in parts.values() for image in part.images]
    if not images:
        raise UserError("no images in it")
    labels, names = numbered_labels(parts, classes)
    found = np.bincount(np.concatenate(list(labels.values())), minlength=len(names)).tolist()
    values = float(min(i.min() for i in images)), float(max(i.max() for i in images))
    if not np.isfinite(values).all():
        raise UserError("some values of its images are no finite numbers")
    kinds = {image.dtype for image in images}
    return Look(
        dict(zip(names, found, strict=True)),
        {image.shape[:2] for image in images},
        3 if any(image.ndim == 3 for image in images) else 1,
        {str(kind) for kind in kinds},
        values,
        span_of(kinds, *values),
    )


def span_of(kinds: Iterable[np.dtype], low: float, high: float) -> tuple[float, float]:
    """What becomes black and what white, by number types, and the lowest and highest value.

    0 and 255 where all values are such, as many bits as it takes where they are whole numbers and
    larger; 0 and 1, or -1 and 1, where others are in these; else the extremes.
    """
    whole = all(kind.kind in "ui" for kind in kinds)
    if whole and low >= 0:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    for span in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if not whole and span[0] <= low <= high <= span[1]:
            return span
    return low, high


def numbered_labels(
    parts: Mapping[str, Raw], classes: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels as whole numbers from 0, by part, and their names.

    Whole numbers stay as they are, and text is numbered in the order of the alphabet; with
    `classes`, either in that order.

    Raises
    ------
    UserError: `classes` lacks a label; or without, there are negative numbers.
    """
    every = np.unique(np.concatenate([part.labels for part in parts.values()]))
    text = every.dtype.kind == "U"
    if not classes and not text:
        if every.min(initial=0) < 0:
            raise UserError(f"labels from {every.min()}: --classes LIST says their order")
        names = numbered(int(every.max(initial=-1)) + 1)
        return {name: part.labels for name, part in parts.items()}, names
    names = tuple(classes or every.tolist())
    if unknown := sorted({str(label) for label in every} - set(names)):
        raise UserError(f"--classes {','.join(names)}: lacks {some(unknown)}")
    places = {name: place for place, name in enumerate(names)}
    return {
        name: np.array([places[str(label)] for label in part.labels.tolist()], dtype=np.int64)
        for name, part in parts.items()
    }, names


def convert(
    parts: Mapping[str, Raw],
    path: Path,
    *,
    classes: Sequence[str] = (),
    span: tuple[float, float] | None = None,
    size: int = 0,
) -> Look:
    """Write an .npz file that a run takes; what was looked at.

    Without a part of its own to test on, all images are for training, a fifth of which a run holds
    out.

    Parameters
    ----------
    classes: names of the labels, in their order; see `numbered_labels`.
    span: what becomes black and what white; None as `look` has it.
    size: height and width of all images; 0: as they are.

    Raises
    ------
    UserError: see `look`; images differ in size and no other is given; or the file cannot be
        written.
    """
    found = look(parts, classes)
    if not size and len(found.sizes) > 1:
        raise UserError(
            f"images of {len(found.sizes)} sizes: --image-size PIXELS brings them to one"
        )
    low, high = span or found.span
    labels, names = numbered_labels(parts, classes)
    pixels = {
        name: _together([_eight_bits(i, low, high) for i in part.images], found.channels, size)
        for name, part in parts.items()
    }
    arrays: dict[str, np.ndarray] = {}
    if "test" in parts:
        shape = pixels["test"].shape[1:]
        for part in PARTS:
            arrays[f"{part}_{IMAGES}"] = pixels.get(part, np.empty((0, *shape), np.uint8))
            arrays[f"{part}_{LABELS}"] = labels.get(part, np.empty(0, np.int64))
    else:
        arrays = {
            IMAGES: np.concatenate(list(pixels.values())),
            LABELS: np.concatenate(list(labels.values())),
        }
    if names != numbered(len(names)):
        arrays[CLASSES] = np.array(names)
    try:
        with replacing(path) as aside:
            np.savez(aside, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error}") from None
    return found


def _eight_bits(image: np.ndarray, low: float, high: float) -> np.ndarray:
    if image.dtype == np.uint8 and (low, high) == (0, 255):
        return image
    share = (image.astype(np.float64) - low) / ((high - low) or 1)
    return np.asarray((share.clip(0, 1) * 255).round().astype(np.uint8))


def _together(images: Sequence[np.ndarray], channels: int, size: int) -> np.ndarray:
    """(n, H, W), or (n, H, W, 3)."""
    if size:
        to = ImageFormat(size, channels, 1)
        images = [to_format(i[None], to)[0].permute(1, 2, 0).numpy() for i in images]
    if channels == 3:
        images = [np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3)) for image in images]
    else:
        images = [image[..., 0] if image.ndim == 3 else image for image in images]
    return np.stack(images)
