"""What a client keeps on disk after a round, so that it goes on as it was when it was cut off.

The optimisers' moments and the place in the data stream: nothing of this goes to the server. A
node keeps it in a folder of its own; where the run's folder is on the same machine, in there.
"""

import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from flwr.common import Config
from torch import Tensor

from huscf_flwr.errors import cause
from huscf_flwr.nets import State
from huscf_flwr.nets.saved import BrokenFile, load_tensors, packed, save_packed, unpacked

log = logging.getLogger(__name__)

_ROUNDS = 2  # whose state is kept: the server may go on after its last checkpoint but one
_RUNS = 4  # of which a node keeps something
_RUNS_FOLDER = "runs"  # apart from its secret, as the server names them


class ClientState(NamedTuple):
    """The iterations that a client has been told of so far, and its optimisers' state.

    In a file all tensors of a dtype are one: to read and write a tensor takes as long as a
    thousand of its values.
    """

    iterations: int
    moments: State

    def packed(self) -> bytes:
        """For `save_state` and `unpacked`."""
        of_dtype: dict[torch.dtype, list[Tensor]] = {}
        for value in self.moments.values():
            of_dtype.setdefault(value.dtype, []).append(value)
        joined = {str(dtype): _joined(values) for dtype, values in of_dtype.items()}
        places = [(n, str(value.dtype), tuple(value.shape)) for n, value in self.moments.items()]
        return packed(joined, {"iterations": self.iterations, "places": places})

    @classmethod
    def unpacked(cls, content: bytes) -> Self:
        """What `packed` gave, by somebody who can be trusted: nothing is checked."""
        return cls._apart(*unpacked(content))

    @classmethod
    def load(cls, file: Path) -> Self:
        """Raises `BrokenFile` unless it is as it was saved."""
        tensors, facts = load_tensors(file)
        try:
            return cls._apart(tensors, facts)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BrokenFile(f"is no client's state: {cause(error)}") from None

    @classmethod
    def _apart(cls, joined: State, facts: Any) -> Self:
        moments, done = {}, dict.fromkeys(joined, 0)
        for name, dtype, shape in facts["places"]:
            begin = done[dtype]
            done[dtype] += math.prod(shape)
            moments[name] = joined[dtype][begin : done[dtype]].view(shape)
        return cls(int(facts["iterations"]), moments)


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Their values, whatever their order in memory: those of a few MB are not copied twice."""
    found = torch.empty(sum(value.numel() for value in values), dtype=values[0].dtype)
    parts = found.split([value.numel() for value in values])
    for part, value in zip(parts, values, strict=True):
        part.view(value.shape).copy_(value)
    return found


def save_state(config: Config, content: bytes) -> None:
    """Save what lasts after the round that `config` describes, as `ClientState.packed` gave it.

    A warning where that fails.
    """
    folder = _folder(config, "state-dir")
    client, round_ = int(config["client"]), int(config["round"])
    try:
        if folder == _own_folder_of(config):
            run_folder(config)
        own = _of_client(folder, client)
        own.mkdir(exist_ok=True)
        save_packed(own / f"round-{round_}.safetensors", content)
        for old in _files(own)[:-_ROUNDS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("client %d: its state is not kept in %s: %s", client, folder, cause(error))


def load_state(config: Config) -> ClientState | None:
    """What was saved after the last round before the one that `config` describes: of this run, or
    of the one that it goes on from. None if there is nothing good.
    """
    round_, client = int(config["round"]), int(config["client"])
    for key in ("state-dir", "resume-dir"):
        for file in reversed(_files(_of_client(_folder(config, key), client))):
            if _round(file) >= round_:
                continue
            try:
                return ClientState.load(file)
            except BrokenFile as error:
                log.warning("client %d: what it kept is left out: %s: %s", client, file, error)
    return None


def _folder(config: Config, key: str) -> Path:
    """The one that the server names, if this is its machine; else the node's own of this run."""
    named = Path(str(config.get(key, "")))
    if named.is_absolute() and named.is_dir():
        return named
    return _own_folder_of(config)


def _own_folder_of(config: Config) -> Path:
    name = "".join(c for c in str(config.get("run", "")) if c.isalnum() or c == "-")
    return own_folder() / _RUNS_FOLDER / (name or "unnamed")


def run_folder(config: Config) -> Path:
    """The node's own folder for the run that `config` is of; those of old runs are removed.

    Raises
    ------
    OSError: it cannot be made.
    """
    folder = _own_folder_of(config)
    for part in (own_folder(), folder.parent, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_old_runs(folder.parent)
    return folder


def own_folder() -> Path:
    """Where a device keeps what lasts: a folder for each run, and its secret."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "huscf-flwr"


def _forget_old_runs(folder: Path) -> None:
    runs = sorted(folder.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for run in runs[:-_RUNS]:
        shutil.rmtree(run, ignore_errors=True)


def _of_client(folder: Path, client: int) -> Path:
    """A client's own part of a folder: nobody looks for its files among those of thousands."""
    return folder / f"client-{client}"


def _files(folder: Path) -> list[Path]:
    """What a client has kept, in the order of the rounds."""
    return sorted(folder.glob("round-*.safetensors"), key=_round)


def _round(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
