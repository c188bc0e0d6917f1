"""MD-GAN: one generator on the server, a discriminator of its own with every client.

Source: Hardy, Le Merrer, Sericola: "MD-GAN: Multi-Discriminator Generative Adversarial Networks
for Distributed Datasets" (IPDPS 2019), Algorithm 1. The server generates a few batches; a client
trains its discriminator with one of them and judges another; the generator steps by the mean of
what they feed back. From time to time the discriminators change places. There, clients are all in
each iteration (`cohort = "all"`), and pass discriminators to each other: here it is the server,
as Flower's clients do not know each other. The paper trains an ACGAN: here nets are conditional,
and the server draws the labels.

What crosses: generated images and their labels to clients, the gradients at these images to the
server, and between rounds the discriminators, which other clients go on with.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from huscf_flwr.clients.discriminating import MDGANClient
from huscf_flwr.feedback.exchanges import usual_batches
from huscf_flwr.nets import State
from huscf_flwr.report.records import ClientInfo
from strategies.central_generator import CentralGenerator
from strategies.updates import Update


class MDGAN(CentralGenerator):
    """MD-GAN, with as many batches as `mdgan-batches`, and swaps every `mdgan-swap` rounds.

    `held` is the discriminator that each client goes on with.
    """

    client_class: ClassVar[type[MDGANClient]] = MDGANClient
    apart = True
    mean = True

    def batches(self, clients: int) -> int:
        return min(self.config.mdgan_batches or usual_batches(clients), clients)

    def begins_with(self, info: ClientInfo) -> State:
        return self.held.get(info.number, super().begins_with(info))

    def discriminator(self, server_round: int, updates: list[Update]) -> State:
        found = {update.info.number: update.state for update in updates}
        numbers = list(found)
        self.held |= found
        if server_round % self.config.mdgan_swap == 0:
            random = np.random.default_rng((self.config.seed, 4, server_round))
            for number, other in zip(numbers, deranged(numbers, random), strict=True):
                self.held[number] = found[other]
        return found[numbers[0]]


def deranged(items: Sequence[int], random: np.random.Generator) -> list[int]:
    """Items in a random order in which none stays where it is, each such order equally likely.

    One alone stays.
    """
    if len(items) < 2:
        return list(items)
    while True:
        order = random.permutation(len(items))
        if not (order == np.arange(len(items))).any():
            return [items[i] for i in order]
