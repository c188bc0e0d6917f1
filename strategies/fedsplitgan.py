"""Federated Split GANs: one generator on the server, the clients' discriminators averaged.

Source: Kortoçi et al.: "Federated Split GANs" (2022), and what their code runs. The server
generates one batch for all clients of an iteration. Each client's discriminator judges it and
learns from it in one pass; the generator steps by the sum of what they feed back. After each round
discriminators are averaged, all alike. There, nets are not conditional: here they are, and the
server draws the labels. There, a client's discriminator is cut in three parts that run on several
devices of its user, which changes times and not what is computed: here it runs on one node.

What crosses: generated images and their labels to clients, the gradients at these images and the
discriminators to the server, and their mean to clients.
"""

from collections.abc import Mapping
from typing import ClassVar

from huscf_flwr.clients.discriminating import FedSplitGANClient
from huscf_flwr.nets import DISC, GEN, State
from strategies.central_generator import CentralGenerator
from strategies.costs import Passes
from strategies.updates import Update


class FedSplitGAN(CentralGenerator):
    """Federated Split GANs."""

    client_class: ClassVar[type[FedSplitGANClient]] = FedSplitGANClient
    apart = False
    mean = False
    passes: ClassVar[Mapping[str, Passes]] = {GEN: Passes(0, 0, 0), DISC: Passes(2, 3, 2)}

    def batches(self, clients: int) -> int:
        return 1

    def discriminator(self, server_round: int, updates: list[Update]) -> State:
        states = [update.state for update in updates]
        return self.defences.average(states, [1 / len(states)] * len(states))
