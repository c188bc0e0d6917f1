"""The runners of a round among themselves: sums over all of them, by torch.distributed's gloo.

Every runner has to take part in every sum, in the same order. Tensors only: nothing that crosses
is unpickled. It is neither encrypted nor is it asked who sends it, as gloo can do neither.
"""

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

_LOOK_SECONDS = 0.5
_COMING_SECONDS = 30.0
"""For all to meet when a round opens."""


class PeersLost(Exception):
    """Another runner is gone, or this round is given up; the message says which."""


@dataclass(frozen=True)
class Meeting:
    """Where runners find each other.

    Attributes
    ----------
    name: of the round, as no other has it.
    rank: this runner's number.
    size: how many there are.
    host: where the others reach this one: gloo listens there, and nowhere else.
    first: where the first of them is, who has opened a `Rendezvous`.
    port: of that.
    seconds: how long one may wait for the others in a sum.
    """

    name: str
    rank: int
    size: int
    host: str
    first: str
    port: int
    seconds: float


class Rendezvous:
    """Where the runners of a round leave their addresses."""

    def __init__(self, host: str) -> None:
        """Listen there, and nowhere else, on a free port; raises OSError if that is impossible."""
        listening = socket.create_server((host, 0))
        self.port: int = listening.getsockname()[1]
        self._store = _distributed().TCPStore(
            host,
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )


class Peers:
    """This runner's end of the group."""

    def __init__(self, meeting: Meeting) -> None:
        """Meet the others; raises `PeersLost` if they do not come."""
        self.size = meeting.size
        self._abandoned = threading.Event()
        self._limit = timedelta(seconds=meeting.seconds)
        limit = timedelta(seconds=_COMING_SECONDS)
        distributed = _distributed()
        gloo = distributed.ProcessGroupGloo
        try:
            store = distributed.TCPStore(
                meeting.first, meeting.port, is_master=False, wait_for_workers=False, timeout=limit
            )
            options = gloo._Options()
            options._devices = [gloo.create_device(hostname=meeting.host)]
            options._timeout = limit
            named = distributed.PrefixStore(meeting.name, store)
            self._group: Any = gloo(named, meeting.rank, meeting.size, options)
        except RuntimeError as error:
            raise PeersLost(
                f"the runners do not reach each other, from {meeting.host} to {meeting.first}: "
                f"{str(error).splitlines()[0]}"
            ) from None

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of tensors of one dtype, their sums over all runners, where they are.

        Raises
        ------
        PeersLost: another is gone, or `abandon` was called.
        """
        return self._reduced(tensors, _distributed().ReduceOp.SUM)

    def largest(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """As `sums`, the largest of each value."""
        return self._reduced(tensors, _distributed().ReduceOp.MAX)

    def abandon(self) -> None:
        """Wait for nobody any more."""
        self._abandoned.set()

    def close(self) -> None:
        """Break off: the others notice. Harmless when done before."""
        group, self._group = [self._group], None
        # Where an operation waits for a machine that is gone, this takes until its time is over.
        threading.Thread(target=group.clear, daemon=True).start()

    def _reduced(self, tensors: Sequence[Tensor], how: Any) -> list[Tensor]:
        """In one message, as many small ones take long."""
        options = _distributed().AllreduceOptions()
        options.reduceOp, options.timeout = how, self._limit
        here = torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu()
        try:
            if self._group is None:
                raise PeersLost("the runners of this round have parted")
            work = self._group.allreduce([here], options)
            while not self._done(work):
                if self._abandoned.is_set():
                    raise PeersLost("this round is given up")
        except PeersLost:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            raise PeersLost(f"another runner is gone: {str(error).splitlines()[0]}") from None
        parts = here.split([tensor.numel() for tensor in tensors])
        return [
            part.to(tensor.device).view_as(tensor)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    @staticmethod
    def _done(work: Any) -> bool:
        """Wait for a while; raises RuntimeError where it failed."""
        try:
            work.wait(timedelta(seconds=_LOOK_SECONDS))
        except RuntimeError:
            if work.is_completed():
                raise
            return False
        return True


def _distributed() -> Any:
    """A part of PyTorch that is loaded where there are several runners, and nowhere else."""
    from torch import distributed

    return distributed


def address_of(host: str) -> str:
    """The IP address that a name has on this machine; raises OSError where it has none."""
    return str(socket.gethostbyname(host))
