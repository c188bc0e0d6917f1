"""The runner of clients that are objects of this process.

Same procedures, same decisions, same checks as `Runner`, but clients are driven step by step:
nobody waits for anybody, so there are no locks and no deadlines, and two runs of the same clients
end in the same bytes, in cohorts of any size. A fixed number of threads computes the clients'
halves, however many clients there are; who waits for its turn holds parameters and optimiser state
only.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future

from huscf_flwr.procedure import (
    ClientTraining,
    ServerIteration,
    Stacker,
    Steps,
    advance,
    check_answer,
)
from huscf_flwr.runner.cohorts import Cohorts
from huscf_flwr.runner.pace import Pace, Progress, Stopwatch
from huscf_flwr.runner.patience import Patience
from huscf_flwr.runner.seats import Seats
from huscf_flwr.runner.session import Session, SessionOutcome, SessionPlan, progress_of
from huscf_flwr.runner.stacked import Groups
from huscf_flwr.tensors import TensorError, Tensors
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frames import Frame, FrameKey, carried

_NOW = 0.0  # nothing here takes time as far as cohorts are concerned


class InProcessRunner:
    """Trains the server's halves with clients of this process."""

    def __init__(
        self, cohort: int | None, coding: Coding = EXACT, stacker: Stacker | None = None
    ) -> None:
        """Prepare.

        Parameters
        ----------
        cohort: see `RunnerSettings`.
        coding: frames are as if it had written them.
        stacker: has clients computed as one, if given.
        """
        self._cohort = cohort
        self._coding = coding
        self._stacker = stacker
        self._sessions: dict[int, Session] = {}
        self._stopwatch = Stopwatch()

    def open_round(self, round_: int, plans: Iterable[SessionPlan]) -> None:
        """Expect these clients in `train`."""
        self._sessions = {plan.client: Session(round_, plan) for plan in plans}

    def train(
        self, clients: Mapping[int, ClientTraining], workers: Executor
    ) -> dict[int, Exception]:
        """Train all iterations of the round.

        A client that raises, or sends what it must not, is left out from there on.

        Parameters
        ----------
        clients: those of the open round that take part, by number.
        workers: computes what clients compute.

        Returns
        -------
        Why clients are out, by number: what they raised, or what was wrong with what they sent.
        """
        here = {client: self._sessions[client] for client in sorted(clients)}
        for session in here.values():
            session.connect(_NOW)
            session.seat.ready = True
        cohorts = Cohorts(self._cohort, Patience(0.0), grace_s=0.0)
        groups = Groups(here, clients, workers, self._stacker)
        drive = _Drive(here, clients, cohorts, workers, self._stopwatch, self._coding, groups)
        drive.run()
        return drive.failed

    def close_round(self) -> list[SessionOutcome]:
        """How each client fared."""
        for session in self._sessions.values():
            if not session.seat.finished:
                session.fail("did not take part")
        outcomes = [self._sessions[client].outcome for client in sorted(self._sessions)]
        self._sessions = {}
        return outcomes

    def progress(self) -> Progress:
        """Where the open round stands."""
        return progress_of(self._sessions.values())

    @property
    def pace(self) -> Pace | None:
        """What iterations have taken so far, on average; None before the second."""
        return self._stopwatch.pace

    def close(self) -> None:
        """Nothing is open."""


class _Drive:
    """Drives the clients of a round: what they compute up to their next exchange is one task."""

    def __init__(
        self,
        sessions: Mapping[int, Session],
        clients: Mapping[int, ClientTraining],
        cohorts: Cohorts,
        workers: Executor,
        stopwatch: Stopwatch,
        coding: Coding,
        groups: Groups,
    ) -> None:
        self._sessions = sessions
        self._seats = Seats(session.seat for session in sessions.values())
        self._clients = clients
        self._cohorts = cohorts
        self._workers = workers
        self._stopwatch = stopwatch
        self._coding = coding
        self._groups = groups
        self._steps: dict[int, Steps] = {}
        self._answered: dict[int, FrameKey] = {}
        self._seconds = dict.fromkeys(sessions, 0.0)
        self._running: dict[int, Future[Tensors | None]] = {}
        self._step: Future[None] | None = None
        self.failed: dict[int, Exception] = {}

    def run(self) -> None:
        """Train iteration after iteration, until all have done theirs."""
        answers: Mapping[int, Tensors] = {}
        while cohort := self._next_cohort():
            # Those who were in the last iteration finish it while these begin the next.
            self._go_on(answers, begin=cohort)
            answers = {}  # theirs now
            answers = self._iteration(cohort)
        self._go_on(answers)
        self._received()
        self._stopwatch.pause()

    def _next_cohort(self) -> list[Session]:
        begin = self._cohorts.next(self._seats, _NOW).begin
        if begin:
            self._stopwatch.begin(len(begin), time.monotonic())
        return [self._sessions[seat.client] for seat in begin]

    def _iteration(self, cohort: Sequence[Session]) -> Mapping[int, Tensors]:
        """One joint iteration, but for what clients compute with the last answers: these."""
        half, specs = cohort[0].plan.half, cohort[0].specs
        places = {session.plan.client: session.plan.place for session in cohort}
        server: ServerIteration | None = None
        answers: Mapping[int, Tensors] = {}
        for exchange in range(len(specs)):
            if exchange:
                self._go_on(answers)
            requests = self._received()
            if not requests:
                return {}
            server = server or half.iteration(places)
            found = server.answer(exchange, requests)
            answers = {client: found[client] for client in requests if client in found}
            for client in sorted(requests.keys() - found.keys()):
                self._leave_out(self._sessions[client], SessionError(server.refused[client]))
            for client in answers:
                session = self._sessions[client]
                self._answered[client] = session.due
                session.advance(server.results.get(client))
                session.seat.ready = True
            self._step = self._workers.submit(server.step, exchange)
        return answers

    def _go_on(self, answers: Mapping[int, Tensors], begin: Sequence[Session] = ()) -> None:
        """Let clients compute with their answers, and then begin an iteration, all at once."""
        starts = {session.plan.client: session.seat.iteration for session in begin}
        self._running.update(self._groups.go_on(answers, starts))
        # Answered ones first, they hold memory; then the slowest, so that all end together.
        order = sorted(
            {*answers, *starts} - self._running.keys(),
            key=lambda client: (client not in answers, -self._seconds[client]),
        )
        for client in order:
            self._running[client] = self._workers.submit(
                self._advance, client, answers.get(client), starts.get(client)
            )

    def _advance(self, client: int, answer: Tensors | None, start: int | None) -> Tensors | None:
        """What a client sends next, checked; None if its iteration is over."""
        began = time.perf_counter()
        part, session = self._clients[client], self._sessions[client]
        request = None
        if answer is not None:
            # A copy of its own: answers are parts of what the server's graph and others need.
            arrived = carried(Frame(self._answered[client], answer), self._coding)
            own = {name: t.to(part.half.device) for name, t in arrived.tensors.items()}
            check_answer(own, session.specs[session.exchange - 1], part.half.dtype)
            request = advance(self._steps[client], own)
            if request is not None and not session.exchange:
                raise TypeError("the client's half goes on after the last exchange")
        if start is not None:
            self._steps[client] = part.steps(start)
            request = advance(self._steps[client])
        if start is not None or session.exchange:
            if request is None:
                raise TypeError("the client's half has ended before the last exchange")
            try:
                if self._coding is not EXACT:
                    request = carried(Frame(session.due, request), self._coding).tensors
                request = session.check(session.due, request)
            except TensorError as error:
                raise SessionError(str(error)) from None
        self._seconds[client] += time.perf_counter() - began
        return request

    def _received(self) -> dict[int, Tensors]:
        """What the clients have sent, of those with whom nothing is wrong, in their order.

        Then the server's blocks are at rest, too.
        """
        requests: dict[int, Tensors] = {}
        for client in sorted(self._running):
            error = self._running[client].exception()
            if error is None:
                request = self._running[client].result()
                if request is not None:
                    requests[client] = request
            elif isinstance(error, Exception):  # whatever it is, the others go on
                self._leave_out(self._sessions[client], error)
            else:
                raise error
        self._running = {}
        if self._step is not None:
            self._step.result()
            self._step = None
        return requests

    def _leave_out(self, session: Session, error: Exception) -> None:
        client = session.plan.client
        self.failed[client] = error.with_traceback(None)  # which holds activations
        if isinstance(error, SessionError):
            session.fail(str(error))
        else:
            over = session.seat.finished
            where = "at the end" if over else f"before {session.name_of(session.due)}"
            session.fail(f"raised {type(error).__name__} {where}: {error}")
        steps = self._steps.pop(client, None)
        with contextlib.suppress(Exception):  # it is out, whatever else goes wrong with it
            if steps is not None:
                steps.close()
            self._clients[client].half.abandon()
