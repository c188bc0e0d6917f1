"""The segment runner: continuous batching of the clients that are training.

Every client in `fit` has a *session*. Sessions join and leave at iteration boundaries; each
iteration batches the sessions that are active then, its *cohort*, in the order of client ids. One
thread owns the nets; channel threads only put frames in and wait for answers. What is computed
is in `segments`.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from huscf_flwr.cpu import cores, use_threads
from huscf_flwr.nets import NetShapes
from huscf_flwr.split.channel import IterationLost, SessionError
from huscf_flwr.split.frames import (
    Exchange,
    Frame,
    FrameError,
    FrameKey,
    check_tensors,
)
from huscf_flwr.split.pace import Pace, Progress, Stopwatch
from huscf_flwr.split.segments import Iteration, Member, Segments
from huscf_flwr.split.session import EchoSession, Session, SessionOutcome, SessionPlan

RECONNECT_SECONDS = 5.0
"""How long a client whose connection broke may take to dial again, at most."""


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """How the runner batches and how long it waits.

    Attributes
    ----------
    batch_size: samples per client in every frame.
    min_cohort: an iteration waits for this many sessions, or all that are left in the round.
    max_batch: samples that one iteration batches at most; sessions beyond it take turns.
    straggler_timeout: seconds an iteration waits for one exchange of a client, and for its cohort.
    round_timeout: seconds after which nobody waits for an answer any more.
    """

    batch_size: int
    min_cohort: int = 1
    max_batch: int = 256
    straggler_timeout: float = 60.0
    round_timeout: float = 3600.0


@dataclass
class _Round:
    number: int
    sessions: dict[str, Session]
    cohort: int


class Runner:
    """Owns the segments during a round and trains them with whoever is there."""

    def __init__(
        self,
        segments: Segments,
        shapes: NetShapes,
        settings: RunnerSettings,
        warn: Callable[[str], None],
    ) -> None:
        """Start the runner's thread, which computes on all cores.

        Parameters
        ----------
        segments: the server's blocks; nobody else may use them while a round is open.
        shapes: of the whole net, for checking frames.
        settings: how to batch and how long to wait.
        warn: called with one line about each client that is dropped, from the runner's thread.
        """
        self.segments = segments
        self.settings = settings
        self.shapes = shapes
        self.echo_token = secrets.token_urlsafe(24)
        self._warn = warn
        self._dtype = next(segments.nets.parameters()).dtype
        self._changed = threading.Condition()
        self._round: _Round | None = None
        self._busy = False
        self._stopwatch = Stopwatch()
        self._echoes: list[tuple[Frame, Future[Frame]]] = []
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="segment-runner", daemon=True)
        self._thread.start()

    # The strategy's side

    def open_round(self, round_: int, plans: Iterable[SessionPlan]) -> None:
        """Expect these clients, by their tokens, until `close_round`."""
        sessions = {plan.token: Session(self, round_, plan) for plan in plans}
        with self._changed:
            self._round = _Round(round_, sessions, self.settings.min_cohort)
            self._changed.notify_all()

    def close_round(self) -> list[SessionOutcome]:
        """End all sessions, wait for the running iteration, and say how each client fared.

        Raises
        ------
        RuntimeError: the segments themselves failed, as the cause says.
        """
        with self._changed:
            if self._round is None:
                return []
            ended = self._round
            for session in ended.sessions.values():
                if not session.finished:
                    missing = "the round ended before it was done"
                    self._fail(session, missing if session.joined else "it never connected")
            while self._busy:
                self._changed.wait()
            self._round = None
            if self._error is not None:
                raise RuntimeError(f"the segment runner failed: {self._error}") from self._error
        return [
            SessionOutcome(s.plan.client, s.completed, s.activation, s.failure)
            for s in sorted(ended.sessions.values(), key=lambda s: s.plan.client)
        ]

    def progress(self) -> Progress:
        """Where the open round stands."""
        with self._changed:
            if self._round is None:
                return Progress(0, 0, "between rounds")
            sessions = list(self._round.sessions.values())
            active = [s for s in sessions if s.active]
            note = f"{len(active)} clients active"
            if active:
                slowest = min(active, key=lambda s: s.iteration)
                note += f", client {slowest.plan.client} the furthest behind"
            done = sum(s.completed for s in sessions)
            return Progress(done, sum(s.plan.iterations for s in sessions), note)

    @property
    def pace(self) -> Pace | None:
        """What iterations have taken so far, on average; None before the second."""
        return self._stopwatch.pace

    def close(self) -> None:
        """Stop the thread; sessions still open get a `SessionError`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    # The channels' side

    def join(self, token: str) -> Session | EchoSession:
        """The session of the client that holds `token`; joining again resumes it.

        With `echo_token`, which all clients may share, it is one that measures the link.

        Raises
        ------
        SessionError: no open round expects this token, or its session has ended.
        """
        if token == self.echo_token:
            return EchoSession(self)
        with self._changed:
            session = self._round.sessions.get(token) if self._round else None
            if session is None:
                raise SessionError("unknown token: no open round expects this client")
            if session.failure is not None:
                raise SessionError(session.failure)
            session.connection += 1
            session.gone_at = None
            session.since = time.monotonic()
            self._changed.notify_all()
            return session

    def _echo(self, frame: Frame) -> Future[Frame]:
        future: Future[Frame] = Future()
        with self._changed:
            self._echoes.append((frame, future))
            self._changed.notify_all()
        return future

    def _submit(self, session: Session, frame: Frame) -> Future[Frame]:
        with self._changed:
            if session.answer is not None and session.answer[0] == frame.key:
                return session.answer[1]
            self._admit(session, frame.key)
        problem = None
        try:
            due, _ = session.frame_shapes[frame.key.exchange]
            check_tensors(frame.tensors, due, self._dtype)
        except FrameError as error:
            problem = f"sent an invalid frame in {frame.key}: {error}"
        with self._changed:
            if problem:
                self._fail(session, problem)
            if session.answer is not None and session.answer[0] == frame.key:
                return session.answer[1]  # repeated while this one was checked
            self._admit(session, frame.key)
            future: Future[Frame] = Future()
            session.answer = (frame.key, future)
            session.pending, session.since = frame, time.monotonic()
            session.lagging = False
            self._changed.notify_all()
            return future

    def _admit(self, session: Session, key: FrameKey) -> None:
        """Raise unless this is the frame that is due from the session."""
        if self._closed or self._error is not None:
            self._fail(session, "the runner has stopped")
        if session.failure is not None:
            raise SessionError(session.failure)
        if key.round == session.round and key.iteration < session.iteration:
            session.lagging = False
            raise IterationLost(session.lost)
        if key != session.due or session.pending is not None or session.finished:
            self._fail(session, f"sent {key} where {session.due} was due")
            raise SessionError(session.failure)

    def _disconnected(self, session: Session, connection: int) -> None:
        with self._changed:
            if connection == session.connection and not session.finished:
                session.gone_at = time.monotonic()
                self._changed.notify_all()

    def _leave(self, session: Session, reason: str) -> None:
        with self._changed:
            if not session.finished:
                self._fail(session, f"{reason} in {session.due}")
            session.answer = None

    # The runner's own thread

    def _run(self) -> None:
        use_threads(cores())
        try:
            while (cohort := self._gather()) is not None:
                self._stopwatch.begin(len(cohort))
                self._iterate(cohort)
                with self._changed:
                    if self._round and not any(s.active for s in self._round.sessions.values()):
                        self._stopwatch.pause()
                    self._busy = False
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, nobody may be left waiting
            self._error = error
        finally:
            with self._changed:
                self._busy = False
                for session in self._round.sessions.values() if self._round else ():
                    if not session.finished:
                        self._fail(session, f"the runner stopped: {self._error or 'closed'}")
                self._changed.notify_all()

    def _gather(self) -> list[Session] | None:
        """Wait until an iteration can begin; its cohort, or None when the runner closes."""
        capacity = max(1, self.settings.max_batch // self.settings.batch_size)
        with self._changed:
            while not self._closed:
                wait = None
                while self._echoes:
                    frame, future = self._echoes.pop(0)
                    future.set_result(frame)
                if self._round is not None:
                    self._drop_vanished(self._round.sessions.values())
                    sessions = list(self._round.sessions.values())
                    ready = [s for s in sessions if s.ready and not s.finished]
                    late = [s for s in sessions if s.active and not s.ready]
                    left = sum(not s.finished for s in sessions)
                    wanted = min(self._round.cohort, left, capacity)
                    complete = len(ready) >= wanted and not late
                    if ready and (complete or len(ready) >= capacity):
                        return self._begin(ready, capacity)
                    wait = self._patience(late)
                    if ready:
                        first = min(s.since for s in ready)
                        latest = max([first, *(s.since for s in late)])
                        until = latest + self.settings.straggler_timeout - time.monotonic()
                        if until <= 0:
                            self._give_up_waiting(self._round, len(ready), wanted, late)
                            return self._begin(ready, capacity)
                        wait = min(wait, until)
                self._changed.wait(wait)
        return None

    def _begin(self, ready: list[Session], capacity: int) -> list[Session]:
        self._busy = True
        ready.sort(key=lambda s: (s.iteration, s.plan.client))
        return sorted(ready[:capacity], key=lambda s: s.plan.client)

    def _give_up_waiting(
        self, round_: _Round, ready: int, wanted: int, late: list[Session]
    ) -> None:
        timeout = f"straggler-timeout={self.settings.straggler_timeout:g} s"
        for session in late:
            session.lagging = True
            self._warn(
                f"client {session.plan.client} is late by {timeout} for {session.due}: "
                "the others go on without it"
            )
        if ready < wanted:
            round_.cohort = ready
            self._warn(
                f"min-cohort={wanted}, but only {ready} clients came within {timeout}: the rest "
                f"of round {round_.number} goes on with at least {ready}. In a simulation, "
                "no more clients train at a time than its pool has workers."
            )

    def _iterate(self, cohort: list[Session]) -> None:
        members = {
            s.plan.client: Member(
                s.plan.cut.gen(self.shapes),
                s.plan.cut.disc(self.shapes),
                tap=s.iteration == s.plan.iterations - 1,
            )
            for s in cohort
        }
        iteration = self.segments.iteration(members)
        for exchange in Exchange:
            requests = self._collect(cohort, exchange)
            if not requests:
                return
            cohort = [s for s in cohort if s.plan.client in requests]
            answers = iteration.answer(exchange, requests)
            self._reply(cohort, exchange, answers, iteration)
            iteration.step()

    def _collect(
        self, cohort: list[Session], exchange: Exchange
    ) -> dict[int, Mapping[str, Tensor]]:
        """Wait for the cohort's frames, by client; who sends none in time is dropped."""
        deadline = time.monotonic() + self.settings.straggler_timeout
        with self._changed:
            while True:
                self._drop_vanished(cohort)
                cohort = [s for s in cohort if s.failure is None and not self._closed]
                missing = [s for s in cohort if s.pending is None]
                remaining = deadline - time.monotonic()
                if not missing or remaining <= 0:
                    for session in missing:
                        self._lose(session)
                    return {s.plan.client: s.pending.tensors for s in cohort if s.pending}
                self._changed.wait(min(remaining, self._patience(missing)))

    def _reply(
        self,
        cohort: list[Session],
        exchange: Exchange,
        answers: Mapping[int, Mapping[str, Tensor]],
        iteration: Iteration,
    ) -> None:
        with self._changed:
            for session in cohort:
                if session.failure is not None or session.answer is None:
                    continue
                key, future = session.answer
                session.pending, session.since = None, time.monotonic()
                if exchange is Exchange.GENERATOR_STEP:
                    session.completed += 1
                    session.iteration += 1
                    session.exchange = Exchange.GENERATE
                    session.activation = iteration.activations.get(session.plan.client)
                else:
                    session.exchange = Exchange(exchange + 1)
                future.set_result(Frame(key, answers[session.plan.client]))

    def _lose(self, session: Session) -> None:
        """Drop a session that is late from this iteration; it may join the next."""
        session.lost = (
            f"client {session.plan.client} was late by "
            f"straggler-timeout={self.settings.straggler_timeout:g} s for {session.due}: "
            "the others finished the iteration without it"
        )
        self._warn(session.lost)
        session.lagging = True
        session.iteration += 1
        session.exchange = Exchange.GENERATE

    def _fail(self, session: Session, reason: str) -> None:
        """End a session for good and tell whoever waits for its answer."""
        if session.failure is not None:
            return
        session.failure = f"client {session.plan.client} {reason}"
        session.pending = None
        if session.answer is not None and not session.answer[1].done():
            session.answer[1].set_exception(SessionError(session.failure))
        if session.joined:
            self._warn(f"{session.failure}: round {session.round} goes on without it")
        self._changed.notify_all()

    def _drop_vanished(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            gone = session.gone_at is not None and not session.finished
            if gone and self._patience([session]) == 0:
                self._fail(session, f"disconnected in {session.due}")

    def _patience(self, sessions: Iterable[Session]) -> float:
        """Seconds until the next of these sessions counts as vanished, or the timeout."""
        ends = [s.gone_at + self._grace for s in sessions if s.gone_at is not None]
        now = time.monotonic()
        return max(0.0, min([*(end - now for end in ends), self.settings.straggler_timeout]))

    @property
    def _grace(self) -> float:
        return min(RECONNECT_SECONDS, self.settings.straggler_timeout)
