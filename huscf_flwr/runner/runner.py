"""The runner: the server's side of a round for clients that connect.

Every client in `fit` has a session. As many threads as there are cores compute iterations, of a
half of the server one at a time; the threads of the clients' connections only put frames in and
wait for answers.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

from huscf_flwr.procedure import ServerIteration
from huscf_flwr.runner.cohorts import Cohorts, Decision
from huscf_flwr.runner.desks import EchoDesk, Echoes, SessionDesk
from huscf_flwr.runner.pace import Pace, Progress, Stopwatch
from huscf_flwr.runner.patience import Patience
from huscf_flwr.runner.rounds import IDLE_SECONDS, Round
from huscf_flwr.runner.session import Session, SessionOutcome, SessionPlan, progress_of
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.runner.together import TOGETHER_SECONDS, Together
from huscf_flwr.runner.tokens import holder_of
from huscf_flwr.system.cpu import cores, use_threads
from huscf_flwr.tensors import TensorError, Tensors
from huscf_flwr.wire.channel import RECONNECT_SECONDS, Desk, SessionError
from huscf_flwr.wire.frames import Frame

_NONE = 0  # the id of no half


class Runner:
    """Trains the server's halves with the clients that are there."""

    def __init__(self, settings: RunnerSettings, warn: Callable[[str], None]) -> None:
        """Start the runner's threads, which share the cores.

        Parameters
        ----------
        settings: how to batch and how long to wait.
        warn: called with one line about each client that is dropped, from any thread.
        """
        self.settings = settings
        self._warn = warn
        self._changed = threading.Condition()
        self._round: Round | None = None
        self._busy: set[int] = set()
        self._idle: Callable[[], bool] = lambda: False
        self._stopwatch = Stopwatch()
        self._patience = Patience(settings.straggler_timeout)
        self._echoes = Echoes()
        self._error: BaseException | None = None
        self._closed = False
        self._together = Together()
        self._told_of_turns = False
        self._gathering = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"runner-{index}", daemon=True)
            for index in range(settings.at_once or cores())
        ]
        for thread in self._threads:
            thread.start()

    # The strategy's side

    def open_round(
        self,
        round_: int,
        plans: Iterable[SessionPlan],
        idle: Callable[[], bool] | None = None,
    ) -> None:
        """Expect these clients, by their tokens, until `close_round`; for `idle` see `Round`.

        Nobody else may use the server's halves in the plans until then.
        """
        in_order = sorted(plans, key=lambda plan: plan.client)
        sessions = {plan.token: Session(round_, plan) for plan in in_order}
        with self._changed:
            cohorts = Cohorts(
                self.settings.cohort,
                self._patience,
                RECONNECT_SECONDS,
                self._together.awaited(in_order),
                TOGETHER_SECONDS,
            )
            self._round = Round(round_, sessions, cohorts, idle)
            self._changed.notify_all()

    def close_round(self) -> list[SessionOutcome]:
        """End all sessions, wait for the running iteration, and say how each client fared.

        Raises
        ------
        RuntimeError: a server's half failed, as the cause says.
        """
        with self._changed:
            if self._round is None:
                return []
            sessions = list(self._round.sessions.values())
            self._round.idle = None
            self._together.ended(session.seat for session in sessions)
            for session in sessions:
                session.closed_at = time.monotonic()
                if not session.seat.finished:
                    missing = "the round ended before it was done"
                    self._fail(session, missing if session.seat.joined else "it never connected")
            while self._busy:
                self._changed.wait()
            self._round = None
            if self._error is not None:
                raise RuntimeError(f"the runner failed: {self._error}") from self._error
        return sorted((s.outcome for s in sessions), key=lambda outcome: outcome.client)

    def progress(self) -> Progress:
        """Where the open round stands."""
        with self._changed:
            return progress_of(self._round.sessions.values() if self._round else ())

    @property
    def pace(self) -> Pace | None:
        """What iterations have taken so far, on average; None before the second."""
        return self._stopwatch.pace

    def echo_token(self, seconds: float) -> str:
        """A token for a client that measures its link, good for so long."""
        with self._changed:
            return self._echoes.tokens.new(time.monotonic(), seconds)

    def close(self) -> None:
        """Stop the threads; sessions still open get a `SessionError`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # The channels' side

    def join(self, token: str) -> Desk:
        """See `wire.channel.Reception`."""
        now = time.monotonic()
        with self._changed:
            if (until := self._echoes.tokens.good_until(token, now)) is not None:
                return EchoDesk(self._echo, self.settings.straggler_timeout, until)
            session = holder_of(token, self._round.sessions) if self._round else None
            if session is None or self._round is None:
                raise SessionError("unknown token: no open round expects this client")
            new = not session.seat.joined and not self._told_of_turns
            if new and (note := self._round.note_on_turns()):
                self._told_of_turns = True
                self._warn(note)
            if session.restless:
                self._fail(session, session.complaint or "connects again and again")
            if session.failure is not None:
                raise SessionError(session.failure)
            session.connect(now)
            self._changed.notify_all()
            return SessionDesk(self, session, self.settings.round_timeout)

    def _echo(self, frame: Frame) -> Future[Frame]:
        with self._changed:
            self._changed.notify_all()
            return self._echoes.take(frame)

    def submit(self, session: Session, connection: int, frame: Frame) -> Future[Frame]:
        """Take a client's frame; its answer, or that of the same frame sent before.

        Raises
        ------
        IterationLost, SessionError: see `wire.channel.Channel`.
        """
        with self._changed:
            if not session.holds(connection):
                why = session.complaint or "dialled again: this connection is over"
                raise SessionError(f"client {session.plan.client} {why}")
            if (answer := session.answer_to(frame.key)) is not None:
                return answer
            self._admit(session, frame)
        problem = None
        try:
            checked = session.check(frame.key, frame.tensors)  # takes a while: not locked
            frame = Frame(frame.key, checked)
        except TensorError as error:
            problem = str(error)
        with self._changed:
            if (answer := session.answer_to(frame.key)) is not None:
                return answer  # repeated while this one was checked
            self._admit(session, frame, problem)
            now = time.monotonic()
            self._time(session, now)
            if session.failure is not None:
                raise SessionError(session.failure)
            future = session.take(frame, now)
            self._changed.notify_all()
            return future

    def _time(self, session: Session, now: float) -> None:
        """Note how long a client took for a frame since its answer, if others waited for it."""
        seat, exchange = session.seat, session.exchange
        if (seat.iteration or exchange) and not seat.lagging:  # or it has been getting ready
            took_s = now - seat.since
            self._patience.took(exchange, took_s)
            self._charge(session, self._patience.beyond(exchange, took_s))

    def _charge(self, session: Session, seconds: float) -> None:
        """End the part of a client that keeps the others waiting again and again."""
        if not seconds:
            return
        session.seat.used_s += seconds
        due = self._patience.account_s(range(len(session.specs)), session.plan.iterations)
        if session.seat.used_s > due:
            self._fail(
                session,
                f"kept the others waiting for {session.seat.used_s:.3g} s beyond what is usual",
            )

    def _admit(self, session: Session, frame: Frame, problem: str | None = None) -> None:
        """Raise unless this frame is due, and there is no problem with what it holds."""
        if self._closed or self._error is not None:
            self._fail(session, "the runner has stopped")
        if (problem := session.admit(frame.key, time.monotonic()) or problem) is not None:
            raise SessionError(self._refuse(session, problem))

    def disconnected(self, session: Session, connection: int) -> None:
        """See `Trainer`."""
        with self._changed:
            if session.holds(connection) and not session.seat.finished:
                session.disconnect(time.monotonic())
                self._changed.notify_all()

    def refuse(self, session: Session, connection: int, problem: str) -> str:
        """See `Trainer`."""
        with self._changed:
            if session.holds(connection):
                return self._refuse(session, problem)
            return f"client {session.plan.client} {problem}"

    def _refuse(self, session: Session, problem: str) -> str:
        if not session.seat.finished:
            session.disconnect(time.monotonic(), problem)
            self._changed.notify_all()
        return f"client {session.plan.client} {problem}"

    def leave(self, session: Session, connection: int, reason: str) -> None:
        """See `Trainer`."""
        with self._changed:
            if connection != session.connection:
                return
            if not session.seat.finished:
                why = f"{reason} in {session.name_of(session.due)}"
                self._fail(session, session.complaint or why)
            session.answered = None

    # The runner's own threads

    def _run(self) -> None:
        half = _NONE
        try:
            while (cohort := self._gather()) is not None:
                half = id(cohort[0].plan.half) if cohort else _NONE
                if cohort:
                    self._iterate(cohort)
                did = bool(cohort) or self._idle()
                with self._changed:
                    self._busy.discard(half)
                    if half not in self._halves():
                        self._stopwatch.pause(half)
                    self._changed.notify_all()
                    if not did:
                        self._changed.wait(IDLE_SECONDS)
        except BaseException as error:  # whatever it is, nobody may be left waiting
            self._error = error
        finally:
            with self._changed:
                self._busy.discard(half)
                stopped = f"the runner stopped: {self._error or 'closed'}"
                for session in self._round.sessions.values() if self._round else ():
                    if not session.seat.finished:
                        self._fail(session, stopped)
                self._echoes.end(stopped)
                self._changed.notify_all()

    def _gather(self) -> list[Session] | None:
        """Wait until an iteration can begin; its cohort, nobody to be idle, None to close."""
        with self._gathering, self._changed:  # one thread at a time has all this to look at
            while not self._closed and self._error is None:
                self._echoes.answer()
                round_ = self._round
                if round_ is not None and round_.idle and self._busy:
                    round_ = None  # all runners do the same in one order: one thing at a time
                decision = self._decide(round_) if round_ is not None else Decision()
                if round_ is not None and decision.begin:
                    half, now = id(decision.begin[0].half), time.monotonic()
                    self._busy.add(half)
                    self._stopwatch.begin(len(decision.begin), now, half)
                    use_threads(max(1, cores() // round_.at_once(len(self._threads))))
                    return [round_.by_seat[seat] for seat in decision.begin]
                if decision.late:
                    continue
                if round_ is not None and round_.idle and not self._halves():
                    self._idle = round_.idle
                    self._busy.add(_NONE)
                    return []
                self._changed.wait(decision.wait_s)
        return None

    def _decide(self, round_: Round) -> Decision:
        """What to do next, of the halves that are not busy; waiting for one holds up no other."""
        self._drop_gone(round_)
        waits: list[float] = []
        for half in round_.halves.keys() - self._busy:
            decision = round_.cohorts.next(round_.halves[half], time.monotonic())
            self._give_up(round_, decision)
            if decision.begin or decision.late:
                return decision
            waits += [decision.wait_s] if decision.wait_s is not None else []
        return Decision(wait_s=min(waits, default=None))

    def _halves(self) -> set[int]:
        """Those with clients that go on."""
        halves = self._round.halves if self._round else {}
        return {half for half, seats in halves.items() if seats.there}

    def _give_up(self, round_: Round, decision: Decision) -> None:
        limit = self._patience.in_words(0)
        for seat in decision.late:
            session = round_.by_seat[seat]
            seat.lagging = True
            self._warn(
                f"client {seat.client} is late by {limit} for {session.name_of(session.due)}: "
                "the others go on without it"
            )
            self._charge(session, self._patience.seconds(0))
        if decision.absent:
            self._warn(round_.note_on_absent(decision.absent, self._patience.longest_s))

    def _iterate(self, cohort: Sequence[Session]) -> None:
        iteration = cohort[0].plan.half.iteration({s.plan.client: s.plan.place for s in cohort})
        for exchange in range(len(cohort[0].specs)):
            requests = self._collect(cohort, exchange)
            if not requests:
                return
            cohort = [s for s in cohort if s.plan.client in requests]
            self._reply(cohort, iteration.answer(exchange, requests), iteration)
            iteration.step(exchange)

    def _collect(self, cohort: Sequence[Session], exchange: int) -> dict[int, Tensors]:
        """Wait for the cohort's frames, by client; who sends none in time is dropped."""
        asked_at = time.monotonic()
        with self._changed:
            while True:
                assert self._round is not None
                self._drop_gone(self._round)
                cohort = [s for s in cohort if s.failure is None and not self._closed]
                missing = [s for s in cohort if s.pending is None]
                if not missing:
                    return {s.plan.client: s.pending.tensors for s in cohort if s.pending}
                seats = [session.seat for session in missing]
                now = time.monotonic()
                decision = self._round.cohorts.missing(seats, exchange, asked_at, now)
                for seat in decision.late:
                    self._lose(self._round.by_seat[seat])
                if decision.late:
                    cohort = [s for s in cohort if s.pending is not None]
                else:
                    self._changed.wait(decision.wait_s)

    def _reply(
        self, cohort: Sequence[Session], answers: Mapping[int, Tensors], iteration: ServerIteration
    ) -> None:
        now = time.monotonic()
        with self._changed:
            for session in cohort:
                client = session.plan.client
                if client not in answers:
                    self._fail(session, iteration.refused[client])
                elif session.failure is None and session.answered is not None:
                    session.answer(answers[client], iteration.results.get(client), now)

    def _lose(self, session: Session) -> None:
        """Drop a session that is late from this iteration; it may join the next."""
        exchange = session.exchange
        session.lose(
            f"was late by {self._patience.in_words(exchange)}, for "
            f"{session.name_of(session.due)}: the others finished the iteration without it"
        )
        self._warn(session.lost)
        self._charge(session, self._patience.seconds(exchange))

    def _fail(self, session: Session, reason: str) -> None:
        if session.fail(reason):
            if session.seat.joined:
                self._warn(f"{session.failure}: round {session.round} goes on without it")
            self._changed.notify_all()

    def _drop_gone(self, round_: Round) -> None:
        now = time.monotonic()
        for seat in [s for of in round_.halves.values() for s in round_.cohorts.gone(of, now)]:
            session = round_.by_seat[seat]
            gone = f"disconnected in {session.name_of(session.due)}"
            self._fail(session, session.complaint or gone)
