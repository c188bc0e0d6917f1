"""How a runner batches and waits."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """How the runner batches and how long it waits.

    Attributes
    ----------
    cohort: clients that share an iteration at most; None: all of the round, who are waited for.
    straggler_timeout: seconds an iteration waits for one exchange of a client, and for its cohort,
        at most; less where others are faster, see `patience`.
    round_timeout: seconds after which nobody waits for an answer any more.
    at_once: halves of the server that are computed at the same time at most; 0: one on each core.
    """

    cohort: int | None = None
    straggler_timeout: float = 60.0
    round_timeout: float = 3600.0
    at_once: int = 0
