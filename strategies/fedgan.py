"""FedGAN: every client trains whole nets on its own, and all are averaged by size.

Source: Rasouli, Sun, Rajagopal: "FedGAN: Federated Generative Adversarial Networks for
Distributed Data" (2020). The comparison for HuSCF: no split, and no clusters.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.clustering.averages import aggregate_apart
from huscf_flwr.clustering.clusters import grouped
from huscf_flwr.clustering.kld_weights import weights
from huscf_flwr.nets import whole_net
from huscf_flwr.report.records import ClientInfo
from strategies.base import GANStrategy
from strategies.updates import Combined, Update


class FedGAN(GANStrategy):
    """FedAvg over unsplit conditional GANs."""

    client_class: ClassVar[type[GANClient]] = WholeGANClient

    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        return {net: tuple(indices) for net, indices in whole_net(self.shapes).items()}

    def assign(self, server_round: int, updates: list[Update]) -> dict[int, int]:
        """Cluster of each client: one for all."""
        return {update.info.number: 0 for update in updates}

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        assignment = self.assign(server_round, updates)
        sizes = {update.info.number: float(update.info.size) for update in updates}
        groups, shares = grouped(assignment), dict[int, float]()
        for members in groups.values():
            inside = weights(np.array([sizes[k] for k in members]), np.zeros(len(members)), 0.0)
            shares |= self.defences.shares(dict(zip(members, map(float, inside), strict=True)))
        states = {update.info.number: update.state for update in updates}
        return Combined(
            aggregate_apart(states, groups, shares, self.defences.average), assignment, shares
        )
