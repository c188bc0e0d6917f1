"""A frame: a short header and named tensors, and its bytes.

On the wire the tensors are a safetensors blob: data only, nothing that a reader would execute.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import safetensors
import safetensors.torch

from huscf_flwr.errors import cause
from huscf_flwr.tensors import Tensors


class FrameKey(NamedTuple):
    """Which frame of which iteration: rounds count from 1, iterations and exchanges from 0."""

    round: int
    iteration: int
    exchange: int


@dataclass(frozen=True)
class Frame:
    """One message of a session, either way."""

    key: FrameKey
    tensors: Tensors


class FrameError(ValueError):
    """Bytes that are no frame."""


_HEADER = struct.Struct("!4sIIH")
_MAGIC = b"HSF2"


def encode(frame: Frame) -> bytes:
    """Frame to bytes: header, then the tensors as safetensors."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in frame.tensors.items()}
    return _HEADER.pack(_MAGIC, *frame.key) + safetensors.torch.save(tensors)


def decode(data: bytes) -> Frame:
    """Bytes to frame; raises `FrameError` if they are not one."""
    try:
        magic, *key = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FrameError("not a frame of this version")
        return Frame(FrameKey(*key), safetensors.torch.load(data[_HEADER.size :]))
    except Exception as error:  # the reader of tensors raises whatever broken bytes lead it to
        raise FrameError(f"unreadable frame of {len(data)} bytes: {cause(error)}") from None
