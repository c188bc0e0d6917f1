"""Who is in the next iteration, who is waited for, and how long.

No threads and no clocks: the times at which things happened go in, decisions come out. Clients
advance evenly: nobody begins an iteration while somebody who is there has not done the one before.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from huscf_flwr.runner.patience import Patience
from huscf_flwr.runner.seats import Due, Seat, Seats


def share(clients: int, size: int | None) -> int:
    """How many of these clients share the next iteration, so that cohorts are equally large.

    `size` is how many may; None: all.
    """
    if size is None or clients <= size:
        return clients
    return -(-clients // -(-clients // size))


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes
    ----------
    begin: who is in an iteration that begins now, in the clients' order; empty: nothing begins.
    late: who is not waited for any more, from now on.
    absent: how many clients of the half never came, and are not waited for any more.
    wait_s: seconds until the next decision, if nothing happens before; None: no limit.
    """

    begin: Sequence[Seat] = ()
    late: Sequence[Seat] = ()
    absent: int = 0
    wait_s: float | None = None


@dataclass
class Cohorts:
    """The decisions of one round.

    Attributes
    ----------
    size: how many clients share an iteration at most, of those who are there; None: all clients
        of the round that train with the same half of the server, who are waited for.
    patience: how long anybody is waited for.
    grace_s: how long a client whose connection broke may take to come back.
    together: clients that the first who is ready to begin the round waits for.
    together_s: for how long.
    """

    size: int | None
    patience: Patience
    grace_s: float
    together: Set[int] = frozenset()
    together_s: float = 0.0
    _given_up: set[int] = field(default_factory=set, init=False)

    def gone(self, seats: Seats, now: float) -> list[Seat]:
        """Whose connection broke too long ago."""
        return [seat for seat, back_by in self._broken(seats.broken) if now >= back_by]

    def next(self, seats: Seats, now: float) -> Decision:
        """The next iteration, if it can begin now."""
        wait_s = self._until_back(seats.broken, now)
        # Time runs from when the last of them was busy with something else than waiting.
        first = seats.ready_since
        if first is None:
            return Decision(wait_s=wait_s)
        if (together_s := self._until_together(seats, first, now)) > 0:
            return Decision(wait_s=together_s if wait_s is None else min(together_s, wait_s))
        halves = seats.due()
        for due in halves:
            wanted = share(len(due.ready) + len(due.late), self.size)
            if len(due.ready) >= wanted and not self._awaited(due, seats):
                return Decision(begin=seats.at(due.ready[:wanted]))
        for due in halves:
            absent = self._awaited(due, seats)
            busy = max(first, due.heard[-1][0]) if due.late else first
            late_s = busy + self.patience.seconds(0) - now if due.late else 0.0
            # Who never came may be on its way; how fast others are says nothing of that.
            absent_s = busy + self.patience.longest_s - now if absent else 0.0
            if late_s <= 0 and absent_s <= 0:
                if due.ready and absent:
                    self._given_up.add(id(due.half))
                begin = due.ready[: share(len(due.ready), self.size)]
                return Decision(
                    begin=seats.at(begin),
                    late=seats.at(due.late),
                    absent=absent if due.ready else 0,
                )
            if due.late and late_s <= 0:
                return Decision(late=seats.at(due.late))
            left_s = min(seconds for seconds in (late_s, absent_s) if seconds > 0)
            wait_s = left_s if wait_s is None else min(left_s, wait_s)
        return Decision(wait_s=wait_s)

    def missing(
        self, seats: Sequence[Seat], exchange: int, asked_at: float, now: float
    ) -> Decision:
        """Those of a running iteration who owe what the others have sent: wait, or do without."""
        left_s = asked_at + self.patience.seconds(exchange) - now
        if left_s <= 0:
            return Decision(late=seats)
        back_s = self._until_back(seats, now)
        return Decision(wait_s=left_s if back_s is None else min(left_s, back_s))

    def _awaited(self, due: Due, seats: Seats) -> int:
        """How many of a half never came but are waited for."""
        if self.size is not None or id(due.half) in self._given_up:
            return 0
        return seats.coming_to(due.half)

    def _until_together(self, seats: Seats, first: float, now: float) -> float:
        """Seconds for which those who are ready to begin the round, the first of them since
        `first`, wait for the others."""
        if seats.begun or self.together.isdisjoint(seats.coming):
            return 0.0
        return first + min(self.together_s, self.patience.longest_s) - now

    def _until_back(self, seats: Iterable[Seat], now: float) -> float | None:
        return min((max(0.0, back_by - now) for _, back_by in self._broken(seats)), default=None)

    def _broken(self, seats: Iterable[Seat]) -> list[tuple[Seat, float]]:
        """Those whose connection broke, and when they have to be back."""
        grace_s = min(self.grace_s, self.patience.longest_s)
        return [
            (seat, seat.gone_at + grace_s)
            for seat in seats
            if seat.gone_at is not None and not seat.finished
        ]
