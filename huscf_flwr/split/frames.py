"""What a client and the runner send each other: the six exchanges, and one frame of each.

A frame is a short header and named tensors. On the wire the tensors are a safetensors blob: data
only, nothing that a reader would execute.
"""

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from huscf_flwr.cuts import Cut
from huscf_flwr.nets import NetShapes

LARGEST = 1e6
"""The largest magnitude of a value that a client may send. Far beyond what training leads to, and
far enough below float32's limit of 3e38 that the squares and sums of such values stay finite."""


class Exchange(enum.IntEnum):
    """The six exchanges of one training iteration, in their order."""

    GENERATE = 1
    """Generator head's output; the segment's output."""
    DISCRIMINATE = 2
    """Discriminator head's outputs for fake and real; the segment's outputs."""
    DISCRIMINATOR_STEP = 3
    """Gradients at those segment outputs; gradients at those head outputs. The segment steps."""
    JUDGE = 4
    """Discriminator head's output for fake; the segment's output."""
    JUDGE_GRADIENT = 5
    """Gradient at that segment output; gradient at that head output. No step."""
    GENERATOR_STEP = 6
    """Gradient at the generator segment's output; gradient at the head's. The segment steps."""


class FrameKey(NamedTuple):
    """Which frame of which iteration: `round` and `iteration` count from 1 and 0."""

    round: int
    iteration: int
    exchange: Exchange

    def __str__(self) -> str:
        return f"exchange {self.exchange.name} of iteration {self.iteration} of round {self.round}"


@dataclass(frozen=True)
class Frame:
    """One message of a session, either way.

    `tensors` holds activations or gradients of shape `(batch, *features)`.
    """

    key: FrameKey
    tensors: Mapping[str, Tensor]


class FrameError(ValueError):
    """A frame that is not what the client's cut implies. The message says what differs."""


Shapes = Mapping[str, tuple[int, ...]]


def frame_shapes(
    cut: Cut, shapes: NetShapes, batch_size: int
) -> dict[Exchange, tuple[Shapes, Shapes]]:
    """The tensors of each exchange for one client: (what it sends, what it gets back)."""
    gen, disc = cut.gen(shapes), cut.disc(shapes)
    gen_in = {"fake": (batch_size, *shapes.gen[gen.head - 1])}
    gen_out = {"fake": (batch_size, *shapes.gen[gen.tail - 1])}
    head = (batch_size, *shapes.disc[disc.head - 1])
    tail = (batch_size, *shapes.disc[disc.tail - 1])
    both_in, both_out = {"fake": head, "real": head}, {"fake": tail, "real": tail}
    fake_in, fake_out = {"fake": head}, {"fake": tail}
    return {
        Exchange.GENERATE: (gen_in, gen_out),
        Exchange.DISCRIMINATE: (both_in, both_out),
        Exchange.DISCRIMINATOR_STEP: (both_out, both_in),
        Exchange.JUDGE: (fake_in, fake_out),
        Exchange.JUDGE_GRADIENT: (fake_out, fake_in),
        Exchange.GENERATOR_STEP: (gen_out, gen_in),
    }


def frame_bytes(cut: Cut, shapes: NetShapes, batch_size: int, dtype: torch.dtype) -> list[int]:
    """Bytes of the tensors in each of the twelve frames of one client's iteration."""
    return [
        sum(torch.Size(shape).numel() for shape in one_way.values()) * dtype.itemsize
        for both in frame_shapes(cut, shapes, batch_size).values()
        for one_way in both
    ]


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Shapes, dtype: torch.dtype, largest: float = LARGEST
) -> None:
    """Raise `FrameError` unless names, shapes, dtype are as expected and values as `check_values`.

    `largest` is the largest magnitude of a value.
    """
    if tensors.keys() != expected.keys():
        raise FrameError(f"tensors {sorted(tensors)} where {sorted(expected)} were due")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(expected[name]):
            raise FrameError(
                f'"{name}" has shape {tuple(tensor.shape)} where {tuple(expected[name])} was due'
            )
        if tensor.dtype != dtype:
            raise FrameError(f'"{name}" has dtype {tensor.dtype} where {dtype} was due')
        check_values(tensor, name, largest)


def check_values(tensor: Tensor, name: str, largest: float = LARGEST) -> None:
    """Raise `FrameError` unless all values are numbers, of the magnitude `largest` at most."""
    if not tensor.numel():
        return
    low, high = (end.item() for end in tensor.aminmax())  # both NaN if any value is
    if not -largest <= low <= high <= largest:
        raise FrameError(
            f'"{name}" has values from {low:g} to {high:g}: they must be between '
            f"{-largest:g} and {largest:g}"
        )


_HEADER = struct.Struct("!4sIIB")
_MAGIC = b"HSF1"


def encode(frame: Frame) -> bytes:
    """Frame to bytes: header, then the tensors as safetensors."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in frame.tensors.items()}
    return _HEADER.pack(_MAGIC, *frame.key) + safetensors.torch.save(tensors)


def decode(data: bytes) -> Frame:
    """Bytes to frame; raises `FrameError` if they are not one."""
    try:
        magic, round_, iteration, exchange = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FrameError("not a frame of this version")
        tensors = safetensors.torch.load(data[_HEADER.size :])
        return Frame(FrameKey(round_, iteration, Exchange(exchange)), tensors)
    except (struct.error, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FrameError(f"unreadable frame of {len(data)} bytes: {error}") from error
