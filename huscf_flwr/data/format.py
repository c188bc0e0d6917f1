"""What a run's images look like, and how any others are brought to that."""

import shlex
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from huscf_flwr.errors import UserError

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images, uint8 (n, H, W) or (n, H, W, C), and labels, int64 (n,)."""
_AT_ONCE = 1000
SLOWEST, FASTEST, LONGEST_S = 1000, 192_000, 60.0
"""Samples a second, and seconds, of what is taken as a recording."""


@dataclass(frozen=True)
class SoundFormat:
    """What recordings are taken to be: samples a second, and seconds that a picture shows."""

    rate: int
    seconds: float

    def __post_init__(self) -> None:
        """Raises `UserError` unless both are numbers within what recordings are."""
        if type(self.rate) is not int or not SLOWEST <= self.rate <= FASTEST:
            raise UserError(f"sound-rate={self.rate!r}: must be from {SLOWEST} to {FASTEST}")
        if type(self.seconds) is not float or not 0 < self.seconds <= LONGEST_S:
            raise UserError(f"sound-seconds={self.seconds!r}: must be up to {LONGEST_S:g}")


@dataclass(frozen=True)
class ImageFormat:
    """A run's images: pixels a side, channels (1 or 3), labels below num_classes.

    `sound` is of what they are pictures, if they are pictures of that.
    """

    size: int
    channels: int
    num_classes: int
    sound: SoundFormat | None = None


@dataclass(frozen=True)
class Kind:
    """What a domain's images are, before a run brings them to its format.

    Attributes
    ----------
    classes: name of each label; its number where it has no other.
    channels: 3 if any image has colour, else 1.
    """

    classes: tuple[str, ...]
    channels: int

    def names(self, count: int) -> tuple[str, ...]:
        """Of so many labels, of which the domain may have fewer, or more."""
        return (self.classes + numbered(count)[len(self.classes) :])[:count]


def numbered(classes: int) -> tuple[str, ...]:
    """Names of labels that have none."""
    return tuple(map(str, range(classes)))


def convert_command(path: str) -> str:
    """What a message names where a run does not take what is there."""
    return f"huscf data convert {shlex.quote(path)} --out FILE.npz"


def to_format(images: np.ndarray, image_format: ImageFormat) -> Tensor:
    """Images (n, H, W) or (n, H, W, C) as uint8 (n, channels, size, size).

    Grey is the mean of the colours; colour is grey three times. Proportions are not kept.
    """
    pixels = torch.from_numpy(images)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    # Floats take four times the memory of pixels: never of all images at once.
    return torch.cat([_convert(part, image_format) for part in pixels.split(_AT_ONCE)])


def _convert(pixels: Tensor, image_format: ImageFormat) -> Tensor:
    if pixels.shape[1] != image_format.channels:
        grey = pixels.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
        pixels = grey.expand(-1, image_format.channels, -1, -1)
    size = (image_format.size, image_format.size)
    if pixels.shape[2:] != size and len(pixels):
        resized = interpolate(
            pixels.float(), size, mode="bilinear", align_corners=False, antialias=True
        )
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    return pixels.contiguous()
