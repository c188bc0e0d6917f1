"""How a client's frames reach the runner: the interface, and the way within one process."""

from typing import TYPE_CHECKING, Protocol

from huscf_flwr.split.frames import Frame

if TYPE_CHECKING:
    from huscf_flwr.split.runner import Runner


class SessionError(Exception):
    """This session is over; the message says why. Nothing more can be exchanged in it."""


class IterationLost(Exception):
    """The others went on without this client; it may take part in its next iteration."""


class Channel(Protocol):
    """One client's way to the runner, for one round."""

    def exchange(self, frame: Frame) -> Frame:
        """Send a frame and wait for its answer.

        Raises
        ------
        IterationLost: the iteration went on without this client.
        SessionError: the session has ended, or the runner stayed silent for too long.
        """
        ...

    def close(self) -> None:
        """Leave the round. Leaving in mid-iteration drops the client from it at once."""
        ...


class LocalChannel:
    """Straight calls into a runner of this process.

    Answers are copied, as a wire would: they are slices of a tensor that the server's autograd
    graph and the other clients still need.
    """

    def __init__(self, runner: "Runner", token: str) -> None:
        """Join the round; raises `SessionError` if the runner does not expect this token."""
        self._session = runner.join(token)

    def exchange(self, frame: Frame) -> Frame:
        answer = self._session.exchange_frame(frame)
        return Frame(answer.key, {name: t.clone() for name, t in answer.tensors.items()})

    def close(self) -> None:
        self._session.leave("closed its channel")
