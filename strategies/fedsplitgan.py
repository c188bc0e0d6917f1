"""Federated Split GANs: one generator on the server, the clients' discriminators averaged.

Source: Kortoçi et al.: "Federated Split GANs" (2022), and what their code runs. The server
generates one batch for all clients of an iteration. Each client's discriminator judges it and
learns from it in one pass; the generator steps by the sum of what they feed back. After each round
discriminators are averaged, all alike. There, nets are not conditional: here they are, and the
server draws the labels. There, a client's discriminator is cut in three parts that run on several
devices of its user, which changes times and not what is computed: here it runs on one node, and
what a profile says of its user's devices counts in predicted times. Who is there at first, and
whose devices have no room for it, is left out of the run.

What crosses: generated images and their labels to clients, the gradients at these images and the
discriminators to the server, and their mean to clients.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from huscf_flwr.clients.discriminating import FedSplitGANClient
from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, GEN, State
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.own_devices import FEDERATED_SPLIT_PASSES, user_seconds, users_seconds
from huscf_flwr.report.records import ClientInfo
from strategies.central_generator import CentralGenerator
from strategies.costs import Passes
from strategies.updates import Update


class FedSplitGAN(CentralGenerator):
    """Federated Split GANs."""

    client_class: ClassVar[type[FedSplitGANClient]] = FedSplitGANClient
    apart = False
    mean = False
    passes: ClassVar[Mapping[str, Passes]] = {GEN: Passes(0, 0, 0), DISC: Passes(2, 3, 2)}

    def check_clients(self, clients: list[ClientInfo]) -> None:
        if self.fleet() is None:  # nobody knows what devices they have
            return
        profiles = self.devices.profiles(clients)
        without = [n for n, p in profiles.items() if user_seconds(self.costs.disc, p, 1) is None]
        if len(without) == len(clients):
            raise UserError(
                "no client's devices have room for the discriminator: they need more capacity, or "
                "a smaller width"
            )
        for number in without:
            self.roster.leave_out(number, "its devices have no room for the discriminator")

    def disc_seconds(self, fleet: Fleet) -> np.ndarray:
        return users_seconds(self.costs.disc, fleet, FEDERATED_SPLIT_PASSES)

    def batches(self, clients: int) -> int:
        return 1

    def discriminator(self, server_round: int, updates: list[Update]) -> State:
        states = [update.state for update in updates]
        return self.defences.average(states, [1 / len(states)] * len(states))
