"""The clients of methods whose generator is on the server: each trains a discriminator."""

from typing import ClassVar

from flwr.common import Config

from huscf_flwr.clients.exchanging import ExchangingGANClient
from huscf_flwr.feedback.discriminators import (
    DiscriminatorHalf,
    JudgesThenSteps,
    StepsThenJudges,
)
from huscf_flwr.nets import DISC, GEN, State, whole_net
from huscf_flwr.system.cpu import torch_device


class DiscriminatorClient(ExchangingGANClient):
    """Trains a discriminator on its images and on those that the server generates."""

    half_class: ClassVar[type[DiscriminatorHalf]]
    adds_noise = False

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return {GEN: (), DISC: tuple(whole_net(self.shapes)[DISC])}

    def half(self, state: State, config: Config) -> DiscriminatorHalf:
        return self.half_class(
            self.config.net_spec,
            self.shapes,
            state,
            learning_rate=self.config.learning_rate,
            batch_size=self.config.batch_size,
            device=torch_device(self.config.device),
        )


class MDGANClient(DiscriminatorClient):
    """See `StepsThenJudges`."""

    half_class = StepsThenJudges


class FedSplitGANClient(DiscriminatorClient):
    """See `JudgesThenSteps`."""

    half_class = JudgesThenSteps
