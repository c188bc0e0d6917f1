"""What crosses between clients and server: each strategy says it of itself."""

import enum
from dataclasses import dataclass


class What(enum.Enum):
    """Kinds of what crosses. Losses, sizes and scores of clients cross with every strategy."""

    GENERATED = "generated images"
    GENERATED_LABELS = "labels of generated images"
    ACTIVATIONS = "activations"
    GRADIENTS = "gradients at activations"
    FEEDBACK = "gradients at generated images"
    PARAMETERS = "parameters"
    MEAN_ACTIVATION = "mean activation of a batch of real images"
    PROBE = 'activations of a sample of real images, to find clusters by (clusters="auto")'
    LABEL_SET = "which labels a client has"


@dataclass(frozen=True)
class Crossing:
    """One kind: whether clients send it, and get it; in every iteration, or between rounds."""

    what: What
    sent: bool
    received: bool
    in_iterations: bool

    def __str__(self) -> str:
        way = {(True, False): "to the server", (False, True): "to clients"}
        both = way.get((self.sent, self.received), "both ways")
        return f"{self.what.value} {both} {'in iterations' if self.in_iterations else 'in rounds'}"


PROBE = Crossing(What.PROBE, sent=True, received=False, in_iterations=False)
PARAMETERS = Crossing(What.PARAMETERS, sent=True, received=True, in_iterations=False)
