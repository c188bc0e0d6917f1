"""Frames that come back as they are, for measuring a link to the runner."""

from collections.abc import Callable
from concurrent.futures import Future

import torch

from huscf_flwr.tensors import TensorError, check_values
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.frames import Frame


class EchoDesk:
    """Answers every frame with itself, checked as all frames are, but no net sees it."""

    connection = 0

    def __init__(self, echo: Callable[[Frame], Future[Frame]], patience_s: float) -> None:
        """`echo` gives the frame back, by way of the thread that answers all others."""
        self._echo = echo
        self._patience_s = patience_s
        self.failure: str | None = None

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

    def disconnected(self, connection: int) -> None:
        """Nothing depends on it."""

    def refuse(self, reason: str) -> str:
        """Nothing depends on it."""
        return reason

    def leave(self, reason: str) -> None:
        """Nothing depends on it."""
        self.failure = reason
