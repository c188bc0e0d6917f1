"""The two exchanges of a training iteration with the generator on the server."""

import enum
import math

from huscf_flwr.nets import NetShapes
from huscf_flwr.procedure import ExchangeSpec


class Exchange(enum.IntEnum):
    """The exchanges, in their order."""

    GENERATE = 0
    """Nothing; generated images with their labels, as numbers of the images' dtype."""
    FEEDBACK = 1
    """Gradient of the generator's loss at generated images; nothing. The generator steps."""


TRAINED, JUDGED = "trained", "judged"
"""Images that the discriminator is trained with, and those that it judges; may be the same."""

LABELS = "-labels"
"""What the name of a batch's labels ends with."""


def exchange_specs(
    shapes: NetShapes, batch_size: int, *, apart: bool
) -> tuple[ExchangeSpec, ExchangeSpec]:
    """What a client sends and gets back; `apart`: images to train with are not those to judge."""
    images, labels = (batch_size, *shapes.gen[-1]), (batch_size,)
    given: dict[str, tuple[int, ...]] = {}
    for name in (TRAINED, JUDGED) if apart else (JUDGED,):
        given |= {name: images, f"{name}{LABELS}": labels}
    return (
        ExchangeSpec(Exchange.GENERATE.name, {}, given),
        ExchangeSpec(Exchange.FEEDBACK.name, {JUDGED: images}, {}),
    )


def usual_batches(clients: float) -> int:
    """How many batches MD-GAN generates for so many clients: the logarithm, at least one."""
    return max(math.ceil(math.log(clients)), 1)
