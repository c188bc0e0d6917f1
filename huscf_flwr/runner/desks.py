"""Where clients' frames come in: for training, and for measuring a link to the runner."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import torch

from huscf_flwr.runner.session import Session
from huscf_flwr.runner.tokens import EchoTokens
from huscf_flwr.tensors import TensorError, check_values
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.frames import Frame


class Echoes:
    """Frames that come back as they are, for those who have a token for it."""

    def __init__(self) -> None:
        self.tokens = EchoTokens()
        self._waiting: list[tuple[Frame, Future[Frame]]] = []

    def take(self, frame: Frame) -> Future[Frame]:
        """One that will come back."""
        future: Future[Frame] = Future()
        self._waiting.append((frame, future))
        return future

    def answer(self) -> None:
        """Give all back."""
        for frame, future in self._waiting:
            future.set_result(frame)
        self._waiting.clear()

    def end(self, reason: str) -> None:
        """None comes back any more."""
        for _, future in self._waiting:
            future.set_exception(SessionError(reason))
        self._waiting.clear()


class EchoDesk:
    """Answers every frame with itself, checked as all frames are, but no net sees it."""

    def __init__(
        self, echo: Callable[[Frame], Future[Frame]], patience_s: float, until: float
    ) -> None:
        """`echo` gives the frame back, by way of the thread that answers all others.

        The token is good `until` then.
        """
        self._echo = echo
        self._patience_s = patience_s
        self._until = until

    @property
    def ended_at(self) -> float | None:
        """See `wire.channel.Desk`."""
        return self._until if self._until < time.monotonic() else None

    def exchange_frame(self, frame: Frame) -> Frame:
        """The same frame.

        Raises
        ------
        SessionError: it has values that no frame may have, or the runner is silent.
        """
        try:
            for tensor in frame.tensors.values():
                if tensor.dtype != torch.float32:
                    raise TensorError(f'"echo" has dtype {tensor.dtype}')
                check_values(tensor, "echo")
            return self._echo(frame).result(self._patience_s)
        except TensorError as error:
            raise SessionError(f"sent an invalid frame: {error}") from error
        except TimeoutError:
            raise SessionError(f"no echo within {self._patience_s:g} s") from None

    def disconnected(self) -> None:
        """Nothing depends on it."""

    def refuse(self, reason: str) -> str:
        """Nothing depends on it."""
        return reason

    def leave(self, reason: str) -> None:
        """Nothing depends on it."""


class Trainer(Protocol):
    """Who trains with what comes in: `wire.channel.Desk`, for any session and connection of it.

    What comes on a connection that is not the session's last one is nothing to it.
    """

    def submit(self, session: Session, connection: int, frame: Frame) -> Future[Frame]: ...
    def refuse(self, session: Session, connection: int, problem: str) -> str: ...
    def disconnected(self, session: Session, connection: int) -> None: ...
    def leave(self, session: Session, connection: int, reason: str) -> None: ...


class SessionDesk:
    """Takes what comes on one connection of a client to the session of its round."""

    def __init__(self, trainer: Trainer, session: Session, patience_s: float) -> None:
        """`patience_s` is how long any answer may take; the connection is the session's last."""
        self._trainer = trainer
        self._session = session
        self._connection = session.connection
        self._patience_s = patience_s

    @property
    def ended_at(self) -> float | None:
        """See `wire.channel.Desk`."""
        return self._session.closed_at

    def exchange_frame(self, frame: Frame) -> Frame:
        """See `wire.channel.Desk`."""
        future = self._trainer.submit(self._session, self._connection, frame)
        try:
            return future.result(self._patience_s)
        except TimeoutError:
            raise SessionError(
                f"client {self._session.plan.client}: no answer to "
                f"{self._session.name_of(frame.key)} within round-timeout={self._patience_s:g} s"
            ) from None

    def disconnected(self) -> None:
        """See `wire.channel.Desk`."""
        self._trainer.disconnected(self._session, self._connection)

    def refuse(self, reason: str) -> str:
        """See `wire.channel.Desk`."""
        return self._trainer.refuse(self._session, self._connection, reason)

    def leave(self, reason: str) -> None:
        """See `wire.channel.Desk`."""
        self._trainer.leave(self._session, self._connection, reason)
