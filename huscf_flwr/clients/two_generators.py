"""The client of HFL-GAN-style training."""

from typing import ClassVar

from flwr.common import Config

from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.nets import GEN, state_names
from huscf_flwr.nets.two_generators import CENTRAL, TwoGeneratorsTrainer


class TwoGeneratorsClient(WholeGANClient):
    """Trains whole nets and a second generator on its own."""

    trainer_class: ClassVar[type[TwoGeneratorsTrainer]] = TwoGeneratorsTrainer

    def handed(self, config: Config) -> list[str]:
        names = super().handed(config)
        gen = state_names(self.config.net_spec, {GEN: self.own_blocks(config)[GEN]})
        return sorted([*names, *(CENTRAL + name.removeprefix(GEN) for name in gen)])
