"""What there is to know of a round's clients in order to wait for them or not, and found at once.

At every frame it is asked who of all clients is ready, who is late, and who never came: `Seats`
keeps them sorted, and looks only at those of whom something has changed. No threads, no clocks.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from huscf_flwr.procedure import ServerHalf


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

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if (seats := vars(self).get("_seats")) is not None:
            seats.note(self)

    def placed(self, seats: "Seats") -> None:
        """Tell these seats of every change from now on."""
        super().__setattr__("_seats", seats)

    @property
    def finished(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.failed or self.iteration >= self.iterations

    @property
    def there(self) -> bool:
        """Whether the others advance with it."""
        return self.joined and not self.finished and not self.lagging


@dataclass
class Due:
    """Those of one half who are there and in the same iteration, by their places.

    Attributes
    ----------
    half: which.
    ready, late: who has sent what the iteration begins with, and who has not; in order.
    heard: the second that each of the late was last heard of, with its place; in order.
    """

    half: ServerHalf
    ready: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    heard: list[tuple[float, int]] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The place of the first of all of them."""
        return min(places[0] for places in (self.ready, self.late) if places)


class _Entry(NamedTuple):
    """Under what a seat is found."""

    there: bool
    coming: bool
    broken: bool
    begun: bool
    iteration: int
    ready: bool
    since: float


_NOWHERE = _Entry(False, False, False, False, 0, False, 0.0)


class Seats:
    """The seats of a round, in the clients' order."""

    def __init__(self, seats: Iterable[Seat]) -> None:
        """They tell of every change from now on."""
        self._all = list(seats)
        self._place = {seat: place for place, seat in enumerate(self._all)}
        self._entries = [_NOWHERE] * len(self._all)
        self._due: dict[int, dict[int, Due]] = {}  # by iteration and half
        self._ready: list[tuple[float, int]] = []
        self._there = self._begun = 0
        self._coming: dict[int, Seat] = {}
        self._coming_to: Counter[int] = Counter()
        self._broken: set[int] = set()
        self._changed = set(self._all)
        for seat in self._all:
            seat.placed(self)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._all)

    def note(self, seat: Seat) -> None:
        """Something of it has changed."""
        self._changed.add(seat)

    def at(self, places: Iterable[int]) -> list[Seat]:
        """Those at these places."""
        return [self._all[place] for place in places]

    def due(self) -> list[Due]:
        """Those who are there and have done the fewest iterations, by half, in their order."""
        self._sort()
        if not self._due:
            return []
        return sorted(self._due[min(self._due)].values(), key=lambda due: due.first)

    @property
    def there(self) -> int:
        """How many the others advance with."""
        self._sort()
        return self._there

    @property
    def ready_since(self) -> float | None:
        """When the first of those who are there and ready became so; None: nobody is."""
        self._sort()
        return self._ready[0][0] if self._ready else None

    @property
    def begun(self) -> bool:
        """Whether anybody has done an iteration."""
        self._sort()
        return self._begun > 0

    @property
    def coming(self) -> Iterable[int]:
        """The numbers of those who never came, and may still come."""
        self._sort()
        return self._coming.keys()

    def coming_to(self, half: ServerHalf) -> int:
        """How many of them are of a half."""
        self._sort()
        return self._coming_to[id(half)]

    @property
    def broken(self) -> list[Seat]:
        """Those whose connection broke, and who may come back, in order."""
        self._sort()
        return self.at(sorted(self._broken))

    def _sort(self) -> None:
        """Take up what has changed."""
        while self._changed:
            seat = self._changed.pop()
            place = self._place[seat]
            old, new = self._entries[place], _entry(seat)
            if old != new:
                self._file(seat, place, old, -1)
                self._file(seat, place, new, 1)
                self._entries[place] = new

    def _file(self, seat: Seat, place: int, entry: _Entry, way: int) -> None:
        """Put a seat where it is found by this entry, or with the `way` -1 take it away."""
        put: Any = insort if way > 0 else _take
        self._begun += way * entry.begun
        if entry.there:
            self._there += way
            of_half = self._due.setdefault(entry.iteration, {})
            due = of_half.setdefault(id(seat.half), Due(seat.half))
            if entry.ready:
                put(due.ready, place)
                put(self._ready, (entry.since, place))
            else:
                put(due.late, place)
                put(due.heard, (entry.since, place))
            if not due.ready and not due.late:
                del of_half[id(seat.half)]
            if not of_half:
                del self._due[entry.iteration]
        if entry.coming:
            self._coming_to[id(seat.half)] += way
            if way > 0:
                self._coming[seat.client] = seat
            else:
                del self._coming[seat.client]
        if entry.broken:
            self._broken ^= {place}


def _entry(seat: Seat) -> _Entry:
    going = not seat.finished
    return _Entry(
        seat.there,
        going and not seat.joined,
        going and seat.gone_at is not None,
        seat.iteration > 0,
        seat.iteration,
        seat.ready,
        seat.since,
    )


def _take(places: list[Any], one: Any) -> None:
    del places[bisect_left(places, one)]
