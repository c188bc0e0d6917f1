"""The client of FedGAN: it trains whole nets on its own."""

import torch
from flwr.common import Config

from huscf_flwr.clients.base import GANClient
from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import State, whole_net
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.procedure import ClientTraining, ExchangeSpec, Steps
from huscf_flwr.system.cpu import torch_device


class WholeNets:
    """A client's half that holds everything: it exchanges nothing."""

    def __init__(self, trainer: UnsplitTrainer) -> None:
        self._trainer = trainer
        self.nets, self.optimisers = trainer.nets, trainer.optimisers
        self.exchanges: tuple[ExchangeSpec, ...] = ()
        first = next(self.nets.parameters())
        self.dtype: torch.dtype = first.dtype
        self.device: torch.device = first.device

    def abandon(self) -> None:
        self.optimisers.zero_grad()

    def iteration(self, batch: Batch) -> Steps:
        """One training iteration; returns its `Losses`."""
        yield from ()
        return self._trainer.iteration(batch)


class WholeGANClient(GANClient):
    """Trains whole nets on its own, as FedGAN's clients do."""

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return {net: tuple(indices) for net, indices in whole_net(self.shapes).items()}

    def half(self, state: State, config: Config) -> WholeNets:
        trainer = UnsplitTrainer(
            self.config.net_spec,
            self.shapes,
            state,
            learning_rate=self.config.learning_rate,
            device=torch_device(self.config.device),
        )
        return WholeNets(trainer)

    def train(self, part: ClientTraining, config: Config) -> None:
        part.alone()
