"""One client's part in one round: what channels call, and what the runner keeps of it."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from huscf_flwr.cuts import Cut
from huscf_flwr.split.channel import SessionError
from huscf_flwr.split.frames import Exchange, Frame, FrameKey, check_values, frame_shapes

if TYPE_CHECKING:
    from huscf_flwr.split.runner import Runner


@dataclass(frozen=True)
class SessionPlan:
    """What the runner expects of one client in one round.

    `token` is the secret by which the client proves that it is this one.
    """

    token: str
    client: int
    cut: Cut
    iterations: int


@dataclass(frozen=True)
class SessionOutcome:
    """How one client's round went.

    Attributes
    ----------
    iterations: how many it completed.
    activation: mean activation (C, H, W) of the middle block on real data in the last iteration,
        or None if the client did not complete that one.
    failure: why the session ended early, or None.
    """

    client: int
    iterations: int
    activation: Tensor | None
    failure: str | None


class Session:
    """One client's part in one round: what channels call. Its state belongs to the runner."""

    def __init__(self, runner: "Runner", round_: int, plan: SessionPlan) -> None:
        self._runner = runner
        self.round = round_
        self.plan = plan
        self.frame_shapes = frame_shapes(plan.cut, runner.shapes, runner.settings.batch_size)
        self.connection = 0
        self.lagging = False
        self.failure: str | None = None
        self.gone_at: float | None = None
        self.iteration = 0
        self.exchange = Exchange.GENERATE
        self.completed = 0
        self.lost: str = ""
        self.activation: Tensor | None = None
        self.pending: Frame | None = None
        self.since = 0.0  # when it sent its frame, got its answer, or joined: whatever came last
        self.answer: tuple[FrameKey, Future[Frame]] | None = None

    @property
    def due(self) -> FrameKey:
        """The frame that its client should send next."""
        return FrameKey(self.round, self.iteration, self.exchange)

    @property
    def joined(self) -> bool:
        """Whether its client has ever connected."""
        return self.connection > 0

    @property
    def finished(self) -> bool:
        """Whether nothing more is expected from this session."""
        return self.failure is not None or self.iteration >= self.plan.iterations

    @property
    def active(self) -> bool:
        """Whether the next iteration should have this session in it."""
        return self.joined and not self.finished and not self.lagging

    @property
    def ready(self) -> bool:
        """Whether it has sent what an iteration begins with."""
        return self.pending is not None and self.exchange is Exchange.GENERATE

    def exchange_frame(self, frame: Frame) -> Frame:
        """Hand in a frame and wait for its answer; a repeated frame gets the same answer.

        Raises
        ------
        IterationLost: the iteration went on without this client.
        SessionError: the session has ended, or this frame ends it.
        """
        future = self._runner._submit(self, frame)
        try:
            return future.result(timeout=self._runner.settings.round_timeout)
        except TimeoutError:
            raise SessionError(
                f"client {self.plan.client}: no answer to {frame.key} within "
                f"round-timeout={self._runner.settings.round_timeout:g} s"
            ) from None

    def disconnected(self, connection: int) -> None:
        """A connection broke; the session ends unless the client has dialled again, or soon does.

        `connection` is what `Session.connection` was when it was made.
        """
        self._runner._disconnected(self, connection)

    def leave(self, reason: str) -> None:
        """End the session; harmless when it has finished."""
        self._runner._leave(self, reason)


class EchoSession:
    """Answers every frame with itself: for measuring the link.

    A frame is checked and goes through the runner's thread, as all others do, but no net sees it.
    """

    connection = 0
    failure = "the frame could not be read"

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner

    def exchange_frame(self, frame: Frame) -> Frame:
        """The same frame.

        Raises
        ------
        FrameError: it has values that no frame may have.
        """
        for tensor in frame.tensors.values():
            check_values(tensor, "echo")
        return self._runner._echo(frame).result(self._runner.settings.straggler_timeout)

    def disconnected(self, connection: int) -> None:
        """Nothing depends on it."""

    def leave(self, reason: str) -> None:
        """Nothing depends on it."""
