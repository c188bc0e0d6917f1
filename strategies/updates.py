"""What goes into a strategy's combination of a round, and what comes out."""

from dataclasses import dataclass, field

from torch import Tensor

from huscf_flwr.nets import State
from huscf_flwr.report.records import ClientInfo
from strategies.answers import Trained


@dataclass(frozen=True)
class Update:
    """What a client brings back from a round.

    Attributes
    ----------
    info: the client.
    trained: what it returned, checked.
    activation: mean activation (C, H, W) of the discriminator's middle block on its real data, or
        None if the strategy did not see one.
    """

    info: ClientInfo
    trained: Trained
    activation: Tensor | None

    @property
    def state(self) -> State:
        """Its own blocks, trained; finite and of the right shapes."""
        return self.trained.state


@dataclass(frozen=True)
class Combined:
    """What a strategy makes of a round's updates.

    Attributes
    ----------
    models: the whole net of each cluster.
    assignment: cluster of each client.
    weights: weight of each client inside its cluster.
    klds: divergence of each client from the rest of its cluster.
    """

    models: dict[int, State]
    assignment: dict[int, int]
    weights: dict[int, float]
    klds: dict[int, float] = field(default_factory=dict)
