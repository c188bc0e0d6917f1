"""Where a round stands, and how long its iterations take."""

from collections.abc import Hashable
from dataclasses import dataclass, field
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
    """Times iterations from one's beginning to the next's, where clients went on at once.

    Those that go on beside each other are timed apart: each is `of` something else.
    """

    iterations: int = 0
    seconds: float = 0.0
    clients: int = 0
    _begun: dict[Hashable, tuple[float, int]] = field(default_factory=dict)

    def begin(self, cohort: int, now: float, of: Hashable = None) -> None:
        """An iteration of so many clients begins; the one before it has ended."""
        if of in self._begun:
            began, clients = self._begun[of]
            self.iterations += 1
            self.seconds += now - began
            self.clients += clients
        self._begun[of] = now, cohort

    def pause(self, of: Hashable = None) -> None:
        """Nobody is there to go on: the iteration that began last does not count."""
        self._begun.pop(of, None)

    @property
    def pace(self) -> Pace | None:
        """The mean so far, or None before the first that counts."""
        if not self.iterations:
            return None
        return Pace(self.seconds / self.iterations, self.clients / self.iterations)
