"""Where a round stands, and how long its iterations take."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Progress:
    """Where a round stands: client iterations done and planned, and a few words on it."""

    done: int
    planned: int
    note: str


class Pace(NamedTuple):
    """What an iteration takes: seconds, and the clients it batched, on average."""

    seconds: float
    clients: float


@dataclass
class Stopwatch:
    """Times iterations from one's beginning to the next's, where clients went on at once."""

    iterations: int = 0
    seconds: float = 0.0
    clients: int = 0
    _began: float | None = None
    _cohort: int = 0

    def begin(self, cohort: int, now: float) -> None:
        """An iteration of so many clients begins; the one before it has ended."""
        if self._began is not None:
            self.iterations += 1
            self.seconds += now - self._began
            self.clients += self._cohort
        self._began, self._cohort = now, cohort

    def pause(self) -> None:
        """Nobody is there to go on: the iteration that began last does not count."""
        self._began = None

    @property
    def pace(self) -> Pace | None:
        """The mean so far, or None before the first that counts."""
        if not self.iterations:
            return None
        return Pace(self.seconds / self.iterations, self.clients / self.iterations)
