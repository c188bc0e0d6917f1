"""A frame: a short header and named tensors, and its bytes.

On the wire a tensor is its memory behind its name, dtype and shape: numbers only, nothing that a
reader would execute, and nothing that has to be searched for.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.errors import cause
from huscf_flwr.tensors import Tensors
from huscf_flwr.wire.codings import EXACT, Coding, Layout, as_rows, laid_out, passed, restored

Buffer = bytes | bytearray | memoryview


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


_HEADER = struct.Struct("!4sIIHB")  # magic, key, number of tensors
_TENSOR = struct.Struct("!BBBB")  # length of its name, dtype, channels last, dimensions
_MAGIC = b"HSF3"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


def written(frame: Frame, coding: Coding = EXACT) -> list[Buffer]:
    """Frame to bytes in pieces, one after the other; some are the tensors' own memory."""
    head: list[Buffer] = [_HEADER.pack(_MAGIC, *frame.key, len(frame.tensors))]
    memory: list[Buffer] = []
    for name, tensor in frame.tensors.items():
        found, known = laid_out(tensor.detach().cpu()), name.encode()
        dtype = _DTYPES.index(tensor.dtype)
        head += [
            _TENSOR.pack(len(known), dtype, found.channels_last, tensor.dim()),
            known,
            struct.pack(f"!{tensor.dim()}I", *tensor.shape),
        ]
        for part in coding.write(found.rows, _seed(frame.key, name)):
            memory.append(part.reshape(-1).view(torch.uint8).numpy().data)
    return [*head, *memory]


def decode(data: Buffer, coding: Coding = EXACT) -> Frame:
    """Bytes to frame; raises `FrameError` if they are not one."""
    try:
        magic, *key, count = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FrameError("not a frame of this version")
        at, heads = _HEADER.size, dict[str, _Head]()
        for _ in range(count):
            name, head, at = _head(data, at)
            if name in heads:
                raise FrameError(f'"{name}" is there twice')
            heads[name] = head
        tensors = {}
        for name, head in heads.items():
            size = coding.size(head.shape, head.dtype)
            if size > len(data) - at:
                raise FrameError(f'"{name}" is cut short')
            tensors[name] = _tensor(memoryview(data)[at : at + size], head, coding)
            at += size
        if at != len(data):
            raise FrameError("it goes on after its end")
        return Frame(FrameKey(*key), tensors)
    except Exception as error:  # whatever broken bytes lead to
        raise FrameError(f"unreadable frame of {len(data)} bytes: {cause(error)}") from None


def carried(frame: Frame, coding: Coding) -> Frame:
    """What arrives of a frame: copies of its tensors, where they are."""
    return Frame(
        frame.key,
        {
            name: passed(tensor, coding, _seed(frame.key, name))
            for name, tensor in frame.tensors.items()
        },
    )


class _Head(NamedTuple):
    shape: Sequence[int]
    dtype: torch.dtype
    channels_last: bool


def _head(data: Buffer, at: int) -> tuple[str, _Head, int]:
    """A tensor's name and what is said of it, from a place on; and the place behind."""
    length, dtype, channels_last, dimensions = _TENSOR.unpack_from(data, at)
    at += _TENSOR.size
    name = bytes(data[at : at + length]).decode()
    shape = struct.unpack_from(f"!{dimensions}I", data, at + length)
    if channels_last > (dimensions == 4):
        raise FrameError(f'"{name}" has no channels that could be last')
    head = _Head(shape, _DTYPES[dtype], bool(channels_last))
    return name, head, at + length + struct.calcsize(f"!{dimensions}I")


def _tensor(memory: memoryview, head: _Head, coding: Coding) -> Tensor:
    own = torch.empty(len(memory), dtype=torch.uint8)
    own.numpy()[:] = np.frombuffer(memory, np.uint8)
    rows = coding.read(own, as_rows(head.shape), head.dtype)
    return restored(Layout(rows, head.channels_last), head.shape)


def _seed(key: FrameKey, name: str) -> int:
    return zlib.crc32(f"{tuple(key)} {name}".encode())
