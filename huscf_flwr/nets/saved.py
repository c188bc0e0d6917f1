"""Files of tensors that a run goes on from: whole, unchanged and finite, or refused.

A safetensors file with facts in its header, and a checksum over facts and tensors. It is on the
disk, not just on its way there, before it takes the place of the one before.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from huscf_flwr.errors import cause
from huscf_flwr.nets.state import State
from huscf_flwr.system.files import replacing

_HEADER = "huscf-flwr"  # one key in the file's header: the order of several is random
_VERSION = 4


class BrokenFile(Exception):
    """This file cannot be gone on from; the message says why."""


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Any) -> None:
    """Write tensors, and facts that JSON can hold.

    Raises
    ------
    OSError: the file cannot be written; what it held before stays.
    """
    # Some may share their memory; a file holds every tensor apart.
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_packed(path, packed(apart, facts))


def packed(tensors: Mapping[str, torch.Tensor], facts: Any) -> bytes:
    """The content of such a file; the tensors are contiguous on the CPU, and share no memory."""
    text = json.dumps(facts, sort_keys=True)
    header = {"format": _VERSION, "facts": text, "sha256": _checksum(tensors, text)}
    return safetensors.torch.save(dict(tensors), {_HEADER: json.dumps(header)})


def unpacked(content: bytes) -> tuple[State, Any]:
    """Tensors and facts of what `packed` gave, by somebody to be trusted: nothing is checked."""
    length = int.from_bytes(content[:8], "little")  # of the header, as in every safetensors file
    header = json.loads(content[8 : 8 + length])["__metadata__"][_HEADER]
    return safetensors.torch.load(content), json.loads(json.loads(header)["facts"])


def save_packed(path: Path, content: bytes) -> None:
    """Write what `packed` gave; raises OSError where that is impossible."""
    with replacing(path, durable=True) as aside:
        aside.write_bytes(content)


def write(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file; raises OSError, and no other error, where that is impossible."""
    with replacing(path) as aside:
        try:
            safetensors.torch.save_file(dict(tensors), aside, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from None


def load_tensors(path: Path) -> tuple[State, Any]:
    """What `save_tensors` wrote.

    Raises
    ------
    BrokenFile: it is not what was written, of another version, or has values that are no numbers.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != _VERSION:
            raise BrokenFile(f"of format {header.get('format')}, where {_VERSION} is due")
        if header["sha256"] != _checksum(tensors, header["facts"]):
            raise BrokenFile("changed since it was written: the checksum differs")
        facts = json.loads(header["facts"])
    except BrokenFile:
        raise
    except Exception as error:  # whatever broken bytes lead the readers to
        raise BrokenFile(f"cannot be read: {cause(error)}") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BrokenFile(f"{name} has values that are no finite numbers")
    return tensors, facts


def _checksum(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    found = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return found.hexdigest()
