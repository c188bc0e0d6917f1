"""Where the time of rounds goes on devices, whose processes are started for every message."""

from dataclasses import astuple, dataclass, fields

import numpy as np

from huscf_flwr.report.records import RoundRecord

_MOST_OVERHEAD = 0.5  # of a round, before something is said
_ROUNDS = 2  # that are looked at before


@dataclass(frozen=True)
class RoundTimes:
    """Seconds of a round, in turn; clients' are means over them.

    Attributes
    ----------
    startup: for starting a process for a client's message.
    training: from when the client begins to when it has done its last iteration.
    messages: for all else until the averages are there: Flower's messages and the polls that
        fetch them, waiting for the slowest, averaging.
    scoring: for scores, and probing for clusters.
    """

    startup: float
    training: float
    messages: float
    scoring: float

    @staticmethod
    def of(record: RoundRecord) -> "RoundTimes | None":
        """Those of a round; None where clients are in processes that last."""
        if not all(client.startup_s for client in record.clients):
            return None
        startup = float(np.mean([client.startup_s for client in record.clients]))
        training = float(np.mean([client.training_s for client in record.clients]))
        messages = max(0.0, record.seconds - startup - training)
        return RoundTimes(startup, training, messages, record.scoring_s)

    @staticmethod
    def mean(times: list["RoundTimes"]) -> "RoundTimes":
        """Of several rounds."""
        return RoundTimes(*np.mean([astuple(one) for one in times], axis=0).tolist())

    @property
    def overhead(self) -> float:
        """Share of a round, without scores, in which a client does not train."""
        return 1 - self.training / (self.startup + self.training + self.messages)

    def __str__(self) -> str:
        return ", ".join(f"{of.name} {getattr(self, of.name):.1f} s" for of in fields(self))


def advice(times: list[RoundTimes]) -> str:
    """What to do where the first rounds were mostly overhead, once; else nothing."""
    if len(times) != _ROUNDS or (overhead := RoundTimes.mean(times).overhead) <= _MOST_OVERHEAD:
        return ""
    return (
        f"devices train for {100 * (1 - overhead):.0f}% of a round: starting a process for each "
        "message and Flower's polls take the rest, as long as ever in a longer round, which a "
        "larger local-epochs gives"
    )
