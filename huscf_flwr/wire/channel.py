"""The two ends of a frame's way: the client's channel, and the desk that answers it."""

from typing import Protocol

from huscf_flwr.wire.codings import Coding
from huscf_flwr.wire.frames import Frame, carried

RECONNECT_SECONDS = 5.0
"""How long a client whose connection broke may take to dial again, at most."""


class SessionError(Exception):
    """This session is over; the message says why. Nothing more can be exchanged in it."""


class IterationLost(Exception):
    """The others went on without this client; it may take part in its next iteration."""


class Channel(Protocol):
    """One client's way to the server, for one round."""

    def exchange(self, frame: Frame) -> Frame:
        """Send a frame and wait for its answer.

        Raises
        ------
        IterationLost: the iteration went on without this client.
        SessionError: the session has ended, or the server stayed silent for too long.
        """
        ...

    def close(self) -> None:
        """Leave the round. Leaving in mid-iteration drops the client from it at once."""
        ...


class Desk(Protocol):
    """The server's end of one connection of a client; a later one takes its place."""

    @property
    def ended_at(self) -> float | None:
        """When all was over that could come of it, by `time.monotonic`; None: it is not."""
        ...

    def exchange_frame(self, frame: Frame) -> Frame:
        """Hand in a frame and wait for its answer; a repeated frame gets the same answer.

        Raises
        ------
        IterationLost, SessionError: see `Channel.exchange`; this frame may be why.
        """
        ...

    def disconnected(self) -> None:
        """The connection broke; the session ends unless the client dials again soon."""
        ...

    def refuse(self, reason: str) -> str:
        """What came was no frame: the connection ends, and the client may dial again.

        Returns
        -------
        What to tell the client.
        """
        ...

    def leave(self, reason: str) -> None:
        """End the session; harmless when it has finished."""
        ...


class Reception(Protocol):
    """Who knows the desks."""

    def join(self, token: str) -> Desk:
        """The desk of the client that holds `token`; joining again resumes its session.

        Raises
        ------
        SessionError: nobody expects this token, or its session has ended.
        """
        ...


class Loopback:
    """A channel that goes nowhere: every frame comes back as it would have arrived."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding

    def exchange(self, frame: Frame) -> Frame:
        return carried(frame, self._coding)

    def close(self) -> None:
        """Nothing is open."""
