"""How the values of a tensor are written on the wire: as they are, or in fewer bytes.

Which one a run uses is its key `wire`. What a coding takes away is the same wherever a frame
passes: `passed` is what arrives, for clients in the runner's own process.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_STEPS = 127
"""On either side of zero, of int8."""


class Coding(ABC):
    """Writes the values of a tensor, given as `(samples, values of a sample)`, in bytes."""

    @abstractmethod
    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes of a tensor of this shape and dtype."""

    @abstractmethod
    def write(self, values: Tensor, seed: int) -> Sequence[Tensor]:
        """What is written of it, one after the other; `seed` is of whatever is drawn."""

    @abstractmethod
    def read(self, data: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The values of a tensor of this shape and dtype, from `size` bytes."""


class AsItIs(Coding):
    """All bits."""

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * dtype.itemsize

    def write(self, values: Tensor, seed: int) -> Sequence[Tensor]:
        return [values]

    def read(self, data: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return data.view(dtype).view(shape)


class BFloat16(Coding):
    """The upper half of a float32, rounded to the nearest: within 1/256 of the value."""

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * torch.bfloat16.itemsize

    def write(self, values: Tensor, seed: int) -> Sequence[Tensor]:
        return [values.to(torch.bfloat16)]

    def read(self, data: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return data.view(torch.bfloat16).view(shape).to(dtype)


class Int8(Coding):
    """255 levels between the largest magnitude of a sample and its negative.

    Rounded up or down at random, so that nothing is lost on average: what is smaller than a level,
    as most of a gradient is, would be rounded to zero always. Zero stays zero. A value is off by
    less than 1/127 of its sample's largest.
    """

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        samples, values = as_rows(shape)
        return samples * (values + torch.float32.itemsize)

    def write(self, values: Tensor, seed: int) -> Sequence[Tensor]:
        largest = values.abs().amax(1).to(torch.float32)
        level = torch.where(largest == 0, 1.0, largest / _STEPS)
        levels = (values / level[:, None].to(values.dtype)).add_(_draws(values, seed)).floor_()
        # What a draw of almost 1 lifts over the last level, or a division's rounding.
        return [level, levels.clamp_(-_STEPS, _STEPS).to(torch.int8)]

    def read(self, data: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        samples, _ = shape
        scales = samples * torch.float32.itemsize
        level = data[:scales].view(torch.float32)
        return torch.mul(data[scales:].view(torch.int8).view(shape), level[:, None]).to(dtype)


def _draws(values: Tensor, seed: int) -> Tensor:
    """Evenly from 0 to 1, in 65,536 steps, one for each value; the same on any device."""
    random = torch.Generator().manual_seed(seed)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64)  # four draws in one
    drawn = words.random_(-(2**63), None, generator=random).view(torch.int16)[: values.numel()]
    evenly = drawn.to(values.device).view(values.shape).to(values.dtype)
    return evenly.add_(2**15 + 0.5).div_(2**16)


CODINGS: dict[str, Coding] = {"float32": AsItIs(), "bfloat16": BFloat16(), "int8": Int8()}
"""By the run key `wire`. A net of float64 is sent as it is by the first."""

EXACT = CODINGS["float32"]


def as_rows(shape: Sequence[int]) -> tuple[int, int]:
    """How many samples a tensor of this shape has, and values in each."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


class Layout(NamedTuple):
    """A tensor as rows of memory, and how to get from there to the tensor.

    Attributes
    ----------
    rows: `(samples, values of a sample)`, contiguous.
    channels_last: whether its values are in that order, which `shape` does not tell.
    """

    rows: Tensor
    channels_last: bool


def laid_out(tensor: Tensor) -> Layout:
    """The tensor's own memory, where it is contiguous or channels are last; else a copy."""
    channels_last = (
        tensor.dim() == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    in_order = tensor.permute(0, 2, 3, 1) if channels_last else tensor.contiguous()
    return Layout(in_order.reshape(as_rows(tensor.shape)), channels_last)


def restored(found: Layout, shape: Sequence[int]) -> Tensor:
    """The tensor that `laid_out` was given."""
    if not found.channels_last:
        return found.rows.view(tuple(shape))
    samples, channels, height, width = shape
    return found.rows.view(samples, height, width, channels).permute(0, 3, 1, 2)


def passed(tensor: Tensor, coding: Coding, seed: int) -> Tensor:
    """What arrives of a tensor: a copy, where it is."""
    found = laid_out(tensor)
    written = coding.write(found.rows, seed)
    data = torch.cat([part.reshape(-1).view(torch.uint8) for part in written])
    read = coding.read(data, as_rows(tensor.shape), tensor.dtype)
    return restored(found._replace(rows=read), tensor.shape)
