"""What a strategy and its runners tell each other: facts as JSON, tensors as safetensors."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor

from huscf_flwr.errors import cause
from huscf_flwr.nets import State

_HEADER = struct.Struct("!4sI")
_MAGIC = b"HSR1"


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    kind: what is asked for, or how it went.
    facts: what JSON can hold.
    tensors: named; those of several things have names of the form `<thing>:<name>`.
    """

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def part(self, thing: str) -> State:
        """The tensors of one thing."""
        prefix = f"{thing}:"
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


def named(thing: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one thing, for a message."""
    return {f"{thing}:{name}": tensor for name, tensor in tensors.items()}


def encode(message: Message) -> bytes:
    """Message to bytes."""
    text = json.dumps([message.kind, message.facts]).encode()
    # Some may share their memory; safetensors holds every tensor apart.
    apart = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in message.tensors.items()
    }
    return _HEADER.pack(_MAGIC, len(text)) + text + safetensors.torch.save(apart)


def decode(data: bytes) -> Message:
    """Bytes to message; raises ValueError if they are not one."""
    try:
        magic, length = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not a message of this version")
        end = _HEADER.size + length
        kind, facts = json.loads(data[_HEADER.size : end])
        return Message(str(kind), dict(facts), safetensors.torch.load(data[end:]))
    except Exception as error:  # whatever broken bytes lead the readers to
        raise ValueError(f"unreadable message of {len(data)} bytes: {cause(error)}") from None
