"""Who begins a round together: devices start seconds apart, and short rounds would be trained by
one client after the other.

No threads and no clocks: how rounds went goes in, whom the next one waits for comes out.
"""

from collections.abc import Iterable

from huscf_flwr.runner.seats import Seat
from huscf_flwr.runner.session import SessionPlan

TOGETHER_SECONDS = 10.0
"""How long the first who is ready waits for the others, at most."""


class Together:
    """Whom a round's first iteration waits for, by how the round before went."""

    def __init__(self) -> None:
        self._absent: frozenset[int] = frozenset()

    def awaited(self, plans: Iterable[SessionPlan]) -> frozenset[int]:
        """Of the clients of a round that begins: devices, unless they never came to the last one.

        Others are in processes that last; where these are fewer than clients, they take turns.
        """
        return frozenset(plan.client for plan in plans if plan.device) - self._absent

    def ended(self, seats: Iterable[Seat]) -> None:
        """A round is over."""
        self._absent = frozenset(seat.client for seat in seats if not seat.joined)
