"""The middle of many numbers, of which few change at a time."""

from bisect import bisect_left, insort
from collections.abc import Mapping


class Middle:
    """A number of each of some clients, sorted."""

    def __init__(self, numbers: Mapping[int, float]) -> None:
        self._numbers = dict(numbers)
        self._sorted = sorted(self._numbers.values())

    def update(self, client: int, number: float) -> None:
        """Replace a client's; nothing happens where it is not one of these."""
        if client in self._numbers:
            del self._sorted[bisect_left(self._sorted, self._numbers[client])]
            insort(self._sorted, number)
            self._numbers[client] = number

    def low(self) -> float:
        """The median, of an even count the lower of both in the middle.

        Of two and a third that is zero, or either of them could say what it is for the other.
        """
        if len(self._sorted) == 2:
            return sorted((*self._sorted, 0.0))[1]
        return self._sorted[(len(self._sorted) - 1) // 2]
