"""The clients of FedGAN: they train whole nets on their own."""

from typing import ClassVar

import torch
from flwr.common import Config, NDArrays, Scalar
from torch import Tensor

from huscf_flwr.clients.base import GANClient
from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import State, to_arrays, whole_net
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.procedure import ClientTraining, ExchangeSpec, Steps
from huscf_flwr.system.cpu import torch_device

ACTIVATION = "activation"
"""Its name, among those of the parameters that it is returned with."""


class WholeNets:
    """A client's half that holds everything: it exchanges nothing."""

    def __init__(self, trainer: UnsplitTrainer) -> None:
        self._trainer = trainer
        self.nets, self.optimisers = trainer.nets, trainer.optimisers
        self.exchanges: tuple[ExchangeSpec, ...] = ()
        first = next(self.nets.parameters())
        self.dtype: torch.dtype = first.dtype
        self.device: torch.device = first.device

    @property
    def activation(self) -> Tensor | None:
        """See `UnsplitTrainer`."""
        return self._trainer.activation

    def abandon(self) -> None:
        self.optimisers.zero_grad()

    def iteration(self, batch: Batch) -> Steps:
        """One training iteration; returns its `Losses`."""
        yield from ()
        return self._trainer.iteration(batch)


class WholeGANClient(GANClient):
    """Trains whole nets on its own, as FedGAN's clients do."""

    trainer_class: ClassVar[type[UnsplitTrainer]] = UnsplitTrainer

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return {net: tuple(indices) for net, indices in whole_net(self.shapes).items()}

    def half(self, state: State, config: Config) -> WholeNets:
        trainer = self.trainer_class(
            self.config.net_spec,
            self.shapes,
            state,
            learning_rate=self.config.learning_rate,
            device=torch_device(self.config.device),
        )
        return WholeNets(trainer)

    def train(self, part: ClientTraining, config: Config) -> None:
        part.alone()


class ObservedGANClient(WholeGANClient):
    """Returns the activation that clusters are found by, too, as HuSCF's server sees it."""

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        _, size, metrics = super().finish(part, config)
        half: WholeNets = part.half  # type: ignore[assignment]
        assert half.activation is not None
        found = {**half.nets.state_dict(), ACTIVATION: half.activation}
        return to_arrays(found), size, metrics
