"""HFL-GAN-style: clients train two generators; edges average all, the centre one of them.

After Petch, Moustafa, Ma, Yasser: "HFL-GAN: scalable hierarchical federated learning GAN for high
quantity heterogeneous clients" (Applied Intelligence 55, 2024), of which only the abstract could
be had: clients are clustered dynamically to edge servers; there are several generators, and stages
of aggregation that are not identical. Everything else is a reconstruction, so no table may call it
the paper's method. Each client has a discriminator and two generators that learn from it. After
every round an edge averages all of its clients', by size. After every `hfl-central` rounds clients
are dealt to edges anew before that, by the directions in which their discriminators have moved
(K-means), and the centre averages the second generator over all edges, by size. At first, edges
are random.
An edge's result is its own generator, the first.

What crosses: whole nets, from each client to its edge and back, and the second generator from
edges to the centre and back. Edges and centre are one server here.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from huscf_flwr.clients.two_generators import TwoGeneratorsClient
from huscf_flwr.clustering.averages import weighted_average
from huscf_flwr.clustering.clusters import cluster, keep_labels
from huscf_flwr.config import RunConfig
from huscf_flwr.nets import DISC, GEN, State, select_blocks
from huscf_flwr.nets.two_generators import CENTRAL, renamed
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from strategies.costs import TWO_GENERATORS
from strategies.fedgan import FedGAN
from strategies.updates import Combined, Update


class HFLGAN(FedGAN):
    """HFL-GAN-style training; edges are clusters."""

    client_class: ClassVar[type[TwoGeneratorsClient]] = TwoGeneratorsClient
    passes = TWO_GENERATORS

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """See `GANStrategy`."""
        super().__init__(config, report, base_dir, serve=serve)
        self.central: dict[int, State] = {}
        """The second generator, as each edge has it."""
        if self.restored is None:
            self.central[min(self.models)] = renamed(self.models[min(self.models)], GEN, CENTRAL)
        else:
            self.take_up(self.restored)

    def initial_cluster(self, info: ClientInfo) -> int:
        random = np.random.default_rng((self.config.seed, 6, info.number))
        return int(random.integers(self.config.hfl_edges))

    def begins_with(self, info: ClientInfo) -> State:
        central = self.central.get(self.cluster_of(info), self.central[min(self.central)])
        return super().begins_with(info) | central

    def also_due(self) -> State:
        return self.central[min(self.central)]

    def assign(self, server_round: int, updates: list[Update]) -> dict[int, int]:
        """Edge of each client: as it was, or by K-means when it is time to."""
        now = {update.info.number: self.cluster_of(update.info) for update in updates}
        if server_round % self.config.hfl_central:
            return now
        ways = np.stack([self._way(update) for update in updates])
        labels = cluster(ways, min(self.config.hfl_edges, len(updates)), self.config.seed)
        return keep_labels(dict(zip(now, map(int, labels), strict=True)), now)

    def _way(self, update: Update) -> np.ndarray:
        """Where a client's discriminator has moved, as a vector of length 1."""
        disc = select_blocks(update.state, {DISC: range(len(self.shapes.disc))})
        moved = update.moved(disc)
        return np.asarray(moved / max(float(moved.norm()), 1e-12))

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        found = super().combine(server_round, updates)
        sizes = {edge: 0.0 for edge in found.models}
        for update in updates:
            sizes[found.assignment[update.info.number]] += update.info.size
        models = {}
        for edge, state in found.models.items():
            self.central[edge] = {n: v for n, v in state.items() if n.startswith(f"{CENTRAL}.")}
            models[edge] = {n: v for n, v in state.items() if n not in self.central[edge]}
        if server_round % self.config.hfl_central == 0:
            shares = [sizes[edge] / sum(sizes.values()) for edge in models]
            common = weighted_average([self.central[edge] for edge in models], shares)
            self.central |= dict.fromkeys(models, common)
        return replace(found, models=models)

    def checkpoint(self, server_round: int) -> Checkpoint:
        servers = {edge: self.central[edge] for edge in self.models}
        return replace(super().checkpoint(server_round), servers=servers)

    def take_up(self, checkpoint: Checkpoint) -> None:
        super().take_up(checkpoint)
        self.central = checkpoint.servers.copy()
