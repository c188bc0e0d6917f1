"""Who is in the next iteration, who is waited for, and how long.

No threads and no clocks: the times at which things happened go in, decisions come out. Clients
advance evenly: nobody begins an iteration while somebody who is there has not done the one before.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from huscf_flwr.procedure import ServerHalf
from huscf_flwr.runner.patience import Patience


def share(clients: int, size: int | None) -> int:
    """How many of these clients share the next iteration, so that cohorts are equally large.

    `size` is how many may; None: all.
    """
    if size is None or clients <= size:
        return clients
    return -(-clients // -(-clients // size))


@dataclass(eq=False)
class Seat:
    """What there is to know of a client in order to wait for it or not.

    Attributes
    ----------
    client: its number.
    half: the server's half it trains with; an iteration is of clients of one half.
    iterations: how many it has to do in the round.
    iteration: the one it is in or will begin.
    joined: whether it has ever connected.
    failed: whether it is out of the round.
    ready: whether it has sent what its iteration begins with.
    lagging: whether it was given up waiting for, and has not been heard of since.
    since: when it connected, was answered or sent something: whatever came last.
    used_s: for how long it kept others waiting beyond what is usual.
    gone_at: when its connection broke, or None.
    """

    client: int
    half: ServerHalf
    iterations: int
    iteration: int = 0
    joined: bool = False
    failed: bool = False
    ready: bool = False
    lagging: bool = False
    since: float = 0.0
    used_s: float = 0.0
    gone_at: float | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.failed or self.iteration >= self.iterations

    @property
    def there(self) -> bool:
        """Whether the others advance with it."""
        return self.joined and not self.finished and not self.lagging


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
    together: Collection[int] = frozenset()
    together_s: float = 0.0
    _given_up: set[int] = field(default_factory=set, init=False)

    def gone(self, seats: Iterable[Seat], now: float) -> list[Seat]:
        """Whose connection broke too long ago."""
        return [seat for seat, back_by in self._broken(seats) if now >= back_by]

    def next(self, seats: Sequence[Seat], now: float) -> Decision:
        """The next iteration, if it can begin now."""
        there = [seat for seat in seats if seat.there]
        wait_s = self._until_back(seats, now)
        if not any(seat.ready for seat in there):
            return Decision(wait_s=wait_s)
        if (together_s := self._until_together(seats, now)) > 0:
            return Decision(wait_s=together_s if wait_s is None else min(together_s, wait_s))
        level = min(seat.iteration for seat in there)
        due = [seat for seat in there if seat.iteration == level]
        waiting = {id(s.half): self._of_half(s.half, due, seats) for s in due}
        for ready, late, absent in waiting.values():
            wanted = share(len(ready) + len(late), self.size)
            if len(ready) >= wanted and not absent:
                return Decision(begin=ready[:wanted])
        # Time runs from when the last of them was busy with something else than waiting.
        first = min(seat.since for seat in there if seat.ready)
        for half, (ready, late, absent) in waiting.items():
            busy = max([first, *(seat.since for seat in late)])
            late_s = busy + self.patience.seconds(0) - now if late else 0.0
            # Who never came may be on its way; how fast others are says nothing of that.
            absent_s = busy + self.patience.longest_s - now if absent else 0.0
            if late_s <= 0 and absent_s <= 0:
                if ready and absent:
                    self._given_up.add(half)
                begin = ready[: share(len(ready), self.size)]
                return Decision(begin=begin, late=late, absent=absent if ready else 0)
            if late and late_s <= 0:
                return Decision(late=late)
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

    def _of_half(
        self, half: ServerHalf, due: Sequence[Seat], seats: Sequence[Seat]
    ) -> tuple[list[Seat], list[Seat], int]:
        """Who is ready, who is not, and how many never came but are waited for."""
        here = [seat for seat in due if seat.half is half]
        absent = [s for s in seats if not s.joined and not s.finished and s.half is half]
        awaited = 0 if self.size is not None or id(half) in self._given_up else len(absent)
        return [s for s in here if s.ready], [s for s in here if not s.ready], awaited

    def _until_together(self, seats: Sequence[Seat], now: float) -> float:
        """Seconds for which those who are ready to begin the round wait for the others."""
        coming = [seat for seat in seats if not seat.joined and not seat.finished]
        if not any(seat.client in self.together for seat in coming) or any(
            seat.iteration for seat in seats
        ):
            return 0.0
        together_s = min(self.together_s, self.patience.longest_s)
        return min(seat.since for seat in seats if seat.ready) + together_s - now

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
