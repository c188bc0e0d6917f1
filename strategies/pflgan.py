"""PFL-GAN-style: every client trains whole nets of its own, also on what similar ones generate.

After Wijesinghe, Zhang, Ding: "PFL-GAN: When Client Heterogeneity Meets Generative Models in
Personalized Federated Learning" (2023), of which only the abstract could be had: clients share
generators; the server learns how similar clients are, and makes each a weighted collection of
generated data. Everything else is a reconstruction, so no table may call it the paper's method:
the autoencoder, the divergence of its latents, the weights made of it (`collaboration`), one
exchange after every round, and as many generated images as a client has of its own.

What crosses: whole nets and the set of labels that it has, from each client to the server;
generated images with their labels from the server to clients.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from flwr.common import Config
from torch import Tensor

from huscf_flwr.clients.mixing import LABELS, MIX_IMAGES, MIX_LABELS, MixingGANClient, packed
from huscf_flwr.collaboration.encoder import latents
from huscf_flwr.collaboration.similarity import divergences, mixing_weights
from huscf_flwr.data.batches import to_uint8, to_unit
from huscf_flwr.nets import State, initial_state, whole_net
from huscf_flwr.nets.generator import Generator
from huscf_flwr.report.records import ClientInfo
from strategies.base import GANStrategy
from strategies.crossing import PARAMETERS, Crossing, What
from strategies.updates import Combined, Update

_SAMPLES = 500  # of each generator, to tell clients apart by


class PFLGAN(GANStrategy):
    """PFL-GAN-style training; each client is a cluster of its own.

    `held` has, as `LABELS`, which labels clients have: 0 or 1 for each class.
    """

    client_class: ClassVar[type[MixingGANClient]] = MixingGANClient
    crosses = (
        PARAMETERS,
        Crossing(What.LABEL_SET, sent=True, received=False, in_iterations=False),
        Crossing(What.GENERATED, sent=False, received=True, in_iterations=False),
        Crossing(What.GENERATED_LABELS, sent=False, received=True, in_iterations=False),
    )

    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        return {net: tuple(indices) for net, indices in whole_net(self.shapes).items()}

    def initial_cluster(self, info: ClientInfo) -> int:
        return info.number

    def model_of(self, cluster: int) -> State:
        if cluster not in self.held:
            return initial_state(self.config.net_spec, self.config.seed)
        return self.models[cluster]

    def also_due(self) -> State:
        return {LABELS: torch.zeros(self.config.num_classes, dtype=torch.int64)}

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        numbers = [update.info.number for update in updates]
        self.held |= {u.info.number: {LABELS: u.trained.also[LABELS]} for u in updates}
        models = {update.info.number: update.state for update in updates}
        return Combined(models, {n: n for n in numbers}, dict.fromkeys(numbers, 1.0))

    def open_round(
        self, server_round: int, clients: list[ClientInfo], iterations: int
    ) -> dict[int, Config]:
        numbers = sorted(self.held)
        if len(numbers) < 2:
            return {}
        weights = self.shares(server_round)
        mixes: dict[int, Config] = {}
        for info in clients:
            if info.number not in self.held:
                continue
            row = weights[numbers.index(info.number)]
            counts = {
                other: round(share * (self.config.pfl_mix or info.size))
                for other, share in zip(numbers, row, strict=True)
                if other != info.number
            }
            made = [
                self._generated(o, n, server_round, info.number) for o, n in counts.items() if n
            ]
            if made:
                images, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
                mixes[info.number] = {MIX_IMAGES: packed(images), MIX_LABELS: packed(labels)}
        return mixes

    def shares(self, server_round: int) -> np.ndarray:
        """How much of each client's images belongs into each client's mix, both by number."""
        sets = [self._generated(number, _SAMPLES, server_round)[0] for number in sorted(self.held)]
        found = latents(to_unit(torch.cat(sets)), self.config.seed)
        return mixing_weights(divergences([part.numpy() for part in found.split(_SAMPLES)]))

    def _generated(self, number: int, count: int, *seed: int) -> tuple[Tensor, Tensor]:
        """So many images of the labels that a client has, and their labels."""
        held = self.held[number][LABELS].nonzero().flatten()
        if not len(held):  # so it says
            held = torch.arange(self.config.num_classes)
        labels = held[torch.arange(count) % len(held)]
        drawn = np.random.SeedSequence((self.config.seed, 5, number, *seed))
        generator = Generator(self.config.net_spec, self.models[number])
        images, _ = generator.sample(count, labels, seed=int(drawn.generate_state(1)[0]))
        return to_uint8(images), labels
