"""FedGAN in the same clusters as HuSCF: what HuSCF would be without splitting."""

from typing import ClassVar

import torch

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.whole import ACTIVATION, ObservedGANClient
from huscf_flwr.nets import State
from huscf_flwr.split.cuts import middle
from strategies.crossing import PARAMETERS, PROBE, Crossing, What
from strategies.fedgan import FedGAN
from strategies.grouping import GroupingStrategy


class ClusteredFedGAN(GroupingStrategy, FedGAN):
    """FedGAN inside the clusters of the run key `clusters`, found as HuSCF finds them.

    What HuSCF would be without splitting. With `clusters="domains"` it is FedGAN among the clients
    of each domain, with `clusters="clients"` everybody trains alone.
    """

    client_class: ClassVar[type[GANClient]] = ObservedGANClient
    crosses = (
        PARAMETERS,
        PROBE,
        Crossing(What.MEAN_ACTIVATION, sent=True, received=False, in_iterations=False),
    )

    def also_due(self) -> State:
        disc = self.shapes.disc
        return {ACTIVATION: torch.zeros(disc[middle(len(disc))])}
