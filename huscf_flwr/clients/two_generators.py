"""The client of HFL-GAN-style training."""

from flwr.common import Config

from huscf_flwr.clients.whole import WholeGANClient, WholeNets
from huscf_flwr.nets import GEN, State, state_names
from huscf_flwr.nets.two_generators import CENTRAL, TwoGeneratorsTrainer
from huscf_flwr.system.cpu import torch_device


class TwoGeneratorsClient(WholeGANClient):
    """Trains whole nets and a second generator on its own."""

    def handed(self, config: Config) -> list[str]:
        names = super().handed(config)
        gen = state_names(self.config.net_spec, {GEN: self.own_blocks(config)[GEN]})
        return sorted([*names, *(CENTRAL + name.removeprefix(GEN) for name in gen)])

    def half(self, state: State, config: Config) -> WholeNets:
        trainer = TwoGeneratorsTrainer(
            self.config.net_spec,
            self.shapes,
            state,
            learning_rate=self.config.learning_rate,
            device=torch_device(self.config.device),
        )
        return WholeNets(trainer)
