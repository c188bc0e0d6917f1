"""How long a client is waited for: several times as long as is usual, and not again and again.

No threads and no clocks: what clients took goes in, seconds come out.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from statistics import median

_TIMES = 5.0  # as long as the median of all is in order
_FLOOR_S = 2.0  # no less than this is in order: networks and busy machines have pauses
_ACCOUNT_S = (
    5.0  # a client may use up in a round beyond that, or as much as all its own work takes
)
_SAMPLES = 16  # before anything is usual
_KEPT = 128


class Patience:
    """What is usual, exchange by exchange; and for how long others are kept waiting beyond it."""

    def __init__(self, longest_s: float) -> None:
        """Nobody is ever waited for longer than `longest_s` in one exchange."""
        self.longest_s = longest_s
        self._taken: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def took(self, exchange: int, seconds: float) -> None:
        """A client sent this exchange's frame so long after the answer to the one before."""
        self._taken[exchange].append(seconds)

    def seconds(self, exchange: int) -> float:
        """How long a frame of this exchange is waited for."""
        usual = self._usual(exchange)
        if usual is None:
            return self.longest_s
        return min(self.longest_s, max(_FLOOR_S, _TIMES * usual))

    def beyond(self, exchange: int, seconds: float) -> float:
        """By how much so many seconds are more than is in order; 0 before anything is usual."""
        usual = self._usual(exchange)
        return 0.0 if usual is None else max(0.0, seconds - _TIMES * usual)

    def account_s(self, exchanges: Sequence[int], iterations: int) -> float:
        """How much a client may use up in a round with these exchanges in every iteration."""
        usual = [self._usual(exchange) or 0.0 for exchange in exchanges]
        return max(_ACCOUNT_S, iterations * sum(usual))

    def in_words(self, exchange: int) -> str:
        """How long a frame of this exchange is waited for, and why not longer."""
        seconds = self.seconds(exchange)
        if seconds == self.longest_s:
            return f"straggler-timeout={seconds:g} s"
        return f"{seconds:.3g} s, {_TIMES:g} times as long as is usual or more"

    def _usual(self, exchange: int) -> float | None:
        taken = self._taken[exchange]
        return median(taken) if len(taken) >= _SAMPLES else None
