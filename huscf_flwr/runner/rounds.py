"""A round that is open: its clients' sessions, and who waits for whom."""

from collections.abc import Callable
from dataclasses import dataclass, field

from huscf_flwr.runner.cohorts import Cohorts
from huscf_flwr.runner.seats import Seat, Seats
from huscf_flwr.runner.session import Session

IDLE_SECONDS = 0.1
"""After which `Round.idle` is called again, where it did nothing."""


@dataclass
class Round:
    """One round.

    Attributes
    ----------
    number: which.
    sessions: by the clients' tokens.
    cohorts: decides who is waited for.
    idle: called again and again while no client is there, if there is something to do then;
        whether it did something. Where there is such a thing, one thread computes at a time.
    halves: the seats of the clients of each half of the server, by its id.
    by_seat: the sessions, by their seats.
    """

    number: int
    sessions: dict[str, Session]
    cohorts: Cohorts
    idle: Callable[[], bool] | None = None
    halves: dict[int, Seats] = field(init=False)
    by_seat: dict[Seat, Session] = field(init=False)

    def __post_init__(self) -> None:
        seats: dict[int, list[Seat]] = {}
        for session in self.sessions.values():
            seats.setdefault(id(session.plan.half), []).append(session.seat)
        self.halves = {half: Seats(of_half) for half, of_half in seats.items()}
        self.by_seat = {session.seat: session for session in self.sessions.values()}

    def at_once(self, threads: int) -> int:
        """How many iterations compute at once; the same all round, as sums differ by threads."""
        return 1 if self.idle else max(1, min(len(self.halves), threads))

    def note_on_turns(self) -> str:
        """What there is to say if a client begins when others have been through with it."""
        done = sum(seat.finished and not seat.failed for seat in self.by_seat)
        if not done:
            return ""
        return (
            f"{done} of {len(self.sessions)} clients finished round {self.number} before others "
            "began it, so the server's blocks see them in turns: a simulation's pool has too few "
            "workers to let them advance evenly"
        )

    def note_on_absent(self, absent: int, waited_s: float) -> str:
        """What there is to say if so many clients did not come, and are not waited for."""
        return (
            f'cohort="all", but {absent} of {len(self.sessions)} clients did not come within '
            f"straggler-timeout={waited_s:g} s: the rest of round {self.number} goes on with "
            "those who are there. In a simulation, no more clients train at a time than its pool "
            "has workers: give it as many, or use huscf train"
        )
