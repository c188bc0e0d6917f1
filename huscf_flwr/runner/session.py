"""One client's part in one round: which frame is due, which were answered, and how it ended.

Rules only: no threads and no clocks. Whoever calls holds the runner's lock, if there is one.
"""

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from huscf_flwr.procedure import ServerHalf
from huscf_flwr.runner.pace import Progress
from huscf_flwr.runner.seats import Seat
from huscf_flwr.tensors import Checked, TensorError, Tensors, check_tensors
from huscf_flwr.wire.channel import IterationLost, SessionError
from huscf_flwr.wire.frames import Frame, FrameKey

_MOST_CONNECTIONS = 32
"""In one round: what breaks more often is no network."""


@dataclass(frozen=True)
class SessionPlan:
    """What is expected of one client in one round.

    Attributes
    ----------
    token: the secret by which the client proves that it is this one.
    client: its number.
    half: the server's half it trains with.
    place: what that half has to know of it; for HuSCF its cut.
    iterations: how many it has to do.
    device: whether it is a machine of its own, whose process starts for the round.
    """

    token: str
    client: int
    half: ServerHalf
    place: Any
    iterations: int
    device: bool = False


@dataclass(frozen=True)
class SessionOutcome:
    """How one client's round went.

    Attributes
    ----------
    iterations: how many it completed.
    result: what the server's half found of it in the last iteration, see
        `procedure.ServerIteration`; None if the client did not complete that one.
    failure: why the session ended early, or None.
    """

    client: int
    iterations: int
    result: Tensor | None
    failure: str | None


class Session:
    """One client's part in one round."""

    def __init__(self, round_: int, plan: SessionPlan) -> None:
        self.round = round_
        self.plan = plan
        self.specs = tuple(plan.half.exchanges(plan.place))
        self.seat = Seat(plan.client, plan.half, plan.iterations)
        self.exchange = 0
        self.completed = 0
        self.connection = 0
        self.failure: str | None = None
        self.complaint = ""
        self.lost = ""
        self.result: Tensor | None = None
        self.pending: Frame | None = None
        self.closed_at: float | None = None  # when its round was over
        self.answered: tuple[FrameKey, Future[Frame]] | None = None

    @property
    def due(self) -> FrameKey:
        """The frame that its client should send next."""
        return FrameKey(self.round, self.seat.iteration, self.exchange)

    @property
    def outcome(self) -> SessionOutcome:
        """How it has gone so far."""
        result = None if self.failure else self.result
        return SessionOutcome(self.plan.client, self.completed, result, self.failure)

    def name_of(self, key: FrameKey) -> str:
        """A frame's place, in words."""
        known = key.exchange < len(self.specs)
        exchange = self.specs[key.exchange].name if known else str(key.exchange)
        return f"exchange {exchange} of iteration {key.iteration} of round {key.round}"

    def connect(self, now: float) -> None:
        """The client has connected, for the first time or again."""
        self.connection += 1
        self.seat.joined, self.seat.gone_at, self.seat.since = True, None, now

    def holds(self, connection: int) -> bool:
        """Whether this connection is the last one, and not broken."""
        return connection == self.connection and self.seat.gone_at is None

    @property
    def restless(self) -> bool:
        """Whether the client has connected too often to do so again."""
        return self.connection >= _MOST_CONNECTIONS

    def answer_to(self, key: FrameKey) -> Future[Frame] | None:
        """The answer to a frame that has been sent before, once there is one."""
        known = self.answered is not None and self.answered[0] == key
        return self.answered[1] if self.answered is not None and known else None

    def admit(self, key: FrameKey, now: float) -> str | None:
        """None if this frame is due; what is wrong with the client that sends it otherwise.

        Raises
        ------
        IterationLost: the iteration went on without this client.
        SessionError: the session has ended.
        """
        if self.failure is not None:
            raise SessionError(self.failure)
        if key.round == self.round and key.iteration < self.seat.iteration:
            self.seat.lagging, self.seat.since = False, now
            raise IterationLost(self.lost)
        if key != self.due or self.pending is not None or self.seat.finished:
            return f"sent {self.name_of(key)} where {self.name_of(self.due)} was due"
        return None

    def check(self, key: FrameKey, tensors: Tensors) -> Checked:
        """Raise `TensorError` unless these may be sent in this frame, which was due."""
        try:
            return check_tensors(tensors, self.specs[key.exchange].sent, self.plan.half.dtype)
        except TensorError as error:
            raise TensorError(f"sent an invalid frame in {self.name_of(key)}: {error}") from None

    def take(self, frame: Frame, now: float) -> Future[Frame]:
        """Accept the frame that is due; what it will be answered."""
        future: Future[Frame] = Future()
        self.answered, self.pending = (frame.key, future), frame
        self.seat.ready = self.exchange == 0
        self.seat.lagging, self.seat.since = False, now
        return future

    def answer(self, tensors: Tensors, result: Tensor | None, now: float) -> None:
        """Answer the pending frame; after the last exchange, the iteration is done.

        `result` is what the server's half has found of this client in this iteration, or None.
        """
        assert self.answered is not None
        key, future = self.answered
        self.advance(result)
        self.pending, self.seat.since = None, now
        future.set_result(Frame(key, tensors))

    def disconnect(self, now: float, complaint: str = "") -> None:
        """The connection has ended; the client may be back soon.

        `complaint` is what was wrong with what it sent, if that was why.
        """
        self.seat.gone_at = now
        self.complaint = complaint

    def advance(self, result: Tensor | None) -> None:
        """An exchange is over, and with the last one the iteration."""
        self.exchange += 1
        self.seat.ready = False
        if self.exchange == len(self.specs):
            self.completed += 1
            last = self.seat.iteration == self.plan.iterations - 1
            self.result = result if last else None
            self._begin_next()

    def lose(self, reason: str) -> None:
        """Go on without the client, which is late; it may join the next iteration."""
        self.lost = f"client {self.plan.client} {reason}"
        self.seat.lagging = True
        self._begin_next()

    def _begin_next(self) -> None:
        self.exchange = 0
        self.seat.iteration += 1

    def fail(self, reason: str) -> bool:
        """End the session for good and tell whoever waits for an answer; False if it had ended."""
        if self.failure is not None:
            return False
        self.failure = f"client {self.plan.client} {reason}"
        self.pending, self.seat.failed = None, True
        if self.answered is not None and not self.answered[1].done():
            self.answered[1].set_exception(SessionError(self.failure))
        return True


def progress_of(sessions: Collection[Session]) -> Progress:
    """Where a round with these sessions stands; empty between rounds."""
    there = [session.seat for session in sessions if session.seat.there]
    note = f"{len(there)} clients active"
    if there:
        slowest = min(there, key=lambda seat: seat.iteration)
        note += f", client {slowest.client} the furthest behind"
    done = sum(session.completed for session in sessions)
    return Progress(done, sum(session.plan.iterations for session in sessions), note)
