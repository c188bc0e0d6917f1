"""Who begins a round together: devices start seconds apart, and short rounds would be trained by
one client after the other.

No threads and no clocks: how rounds went goes in, whom the next one waits for comes out.
"""

from collections.abc import Collection, Iterable

from huscf_flwr.runner.cohorts import Seat

TOGETHER_SECONDS = 10.0
"""How long the first who is ready waits for the others, at most."""


class Together:
    """Whom a round's first iteration waits for, by how the round before went."""

    def __init__(self) -> None:
        self._absent: Collection[int] = frozenset()
        self._in_turns = False

    def awaited(self, clients: Iterable[int]) -> frozenset[int]:
        """Those of a round that begins who probably come soon.

        All but those who never came to the last one; nobody after one in which some came when
        others were through with it, as where a simulation has fewer workers than clients.
        """
        return frozenset() if self._in_turns else frozenset(clients) - frozenset(self._absent)

    def joined(self, seats: Iterable[Seat]) -> int:
        """A client comes for the first time in a round; how many were through with it already."""
        through = sum(seat.finished and not seat.failed for seat in seats)
        self._in_turns = self._in_turns or through > 0
        return through

    def begin(self) -> None:
        """A round begins, after `awaited`."""
        self._in_turns = False

    def ended(self, seats: Iterable[Seat]) -> None:
        """A round is over."""
        self._absent = frozenset(seat.client for seat in seats if not seat.joined)
