"""Domains: labelled images of one kind, with a fifth held out.

A domain is named by a built-in name or by the path of an .npz file. Whatever it is read from, its
images are brought to the run's size and channels here.
"""

import functools
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from huscf_flwr.batches import LabelledImages
from huscf_flwr.data.letters import render_letters
from huscf_flwr.errors import UserError

BUILT_IN = ("digits", "letters")
HELD_OUT = 0.2


@dataclass(frozen=True)
class ImageFormat:
    """A run's images: pixels a side, channels (1 or 3), labels below num_classes."""

    size: int
    channels: int
    num_classes: int


@dataclass(frozen=True)
class Domain:
    """A domain's images, split once and for all."""

    name: str
    train: LabelledImages
    test: LabelledImages


@functools.lru_cache(maxsize=8)
def load_domain(source: str, image_format: ImageFormat) -> Domain:
    """Read or render a domain and hold out a random fifth, the same one every time.

    Parameters
    ----------
    source: a name in `BUILT_IN`, or the path of an .npz file with `images` (uint8, (n, H, W) or
        (n, H, W, C)) and `labels` (integers, (n,)).
    image_format: what the images are brought to.

    Raises
    ------
    UserError: unknown name, unreadable or malformed file, or a label outside the classes.
    """
    images, labels = _read(source, image_format.size)
    if labels.size and not 0 <= labels.min() <= labels.max() < image_format.num_classes:
        raise UserError(
            f"{source}: labels from {labels.min()} to {labels.max()}, but "
            f"num-classes={image_format.num_classes} allows 0 to {image_format.num_classes - 1}"
        )
    data = LabelledImages(_to_format(images, image_format), torch.from_numpy(labels))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    held_out = int(len(data) * HELD_OUT)
    return Domain(
        domain_name(source), data.select(order[held_out:]), data.select(order[:held_out])
    )


def domain_name(source: str) -> str:
    """The name that outputs give a domain: the built-in's, or the file's without its suffix."""
    return source if source in BUILT_IN else Path(source).stem


def _read(source: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    if source == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
        return pixels, labels.astype(np.int64)
    if source == "letters":
        return render_letters(size)
    if source.endswith(".npz"):
        return _read_npz(source)
    raise UserError(
        f'domains: "{source}" is neither built in ({", ".join(BUILT_IN)}) nor the path of an '
        ".npz file"
    )


def _read_npz(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {"images", "labels"} - set(file)
            if missing:
                raise UserError(f'{path}: lacks the array "{min(missing)}"')
            images, labels = file["images"], file["labels"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise UserError(f"{path}: not a readable .npz file: {reason}") from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{path}: images are {images.dtype} of shape {images.shape}; they must be uint8 of "
            "shape (n, H, W) or (n, H, W, C)"
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise UserError(f"{path}: images have {images.shape[3]} channels; 1 or 3 are allowed")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UserError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; they must be integers of "
            f"shape {images.shape[:1]}, one for each image"
        )
    return images, labels.astype(np.int64)


def _to_format(images: np.ndarray, image_format: ImageFormat) -> Tensor:
    """Images (n, H, W) or (n, H, W, C) as uint8 (n, channels, size, size)."""
    pixels = torch.from_numpy(images)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] != image_format.channels:
        # Grey is the mean of the colours; colour is grey three times.
        grey = pixels.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
        pixels = grey.expand(-1, image_format.channels, -1, -1)
    size = (image_format.size, image_format.size)
    if pixels.shape[2:] != size and len(pixels):
        resized = interpolate(
            pixels.float(), size, mode="bilinear", align_corners=False, antialias=True
        )
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    return pixels.contiguous()
