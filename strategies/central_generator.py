"""Base of strategies whose generator is on the server, and whose clients train discriminators."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from flwr.common import Scalar

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.discriminating import DiscriminatorClient
from huscf_flwr.config import RunConfig
from huscf_flwr.defences.guarded import Known
from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.feedback.generator import GeneratorHalf
from huscf_flwr.feedback.usual import usual_feedback
from huscf_flwr.nets import DISC, GEN, State, initial_state, select_blocks, whole_net
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.latency import feedback_seconds, passes_seconds
from huscf_flwr.procedure import exchanged_bytes
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from huscf_flwr.system.cpu import torch_device
from strategies.crossing import PARAMETERS, Crossing, What
from strategies.exchanging import ExchangingStrategy
from strategies.server_blocks import ServerBlocks
from strategies.updates import Combined, Update

_ONE = 0  # cluster


class CentralGenerator(ExchangingStrategy):
    """One generator for all clients. Subclasses say how it learns, and what becomes of the
    discriminators between rounds."""

    client_class: ClassVar[type[GANClient]] = DiscriminatorClient
    crosses = (
        Crossing(What.GENERATED, sent=False, received=True, in_iterations=True),
        Crossing(What.GENERATED_LABELS, sent=False, received=True, in_iterations=True),
        Crossing(What.FEEDBACK, sent=True, received=False, in_iterations=True),
        PARAMETERS,
    )

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """Build the generator.

        Parameters
        ----------
        config, report, base_dir, serve: see `GANStrategy`.

        Raises
        ------
        UserError: see `GANStrategy`.
        """
        super().__init__(config, report, base_dir, serve=serve)
        self.server = ServerBlocks(self._new_half, shared=True)
        if self.restored is not None:
            self.take_up(self.restored)

    def _new_half(self) -> GeneratorHalf:
        """The generator as it is at the beginning of a run."""
        config = self.config
        return GeneratorHalf(
            config.net_spec,
            self.shapes,
            initial_state(config.net_spec, config.seed),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=config.seed,
            batches=self.batches,
            apart=self.apart,
            mean=self.mean,
            device=torch_device(config.device),
        )

    # What a strategy decides

    apart: ClassVar[bool]
    mean: ClassVar[bool]
    """See `GeneratorHalf`, as for `batches`."""

    @abstractmethod
    def batches(self, clients: int) -> int:
        """How many batches are generated in an iteration of so many clients."""

    @abstractmethod
    def discriminator(self, server_round: int, updates: list[Update]) -> State:
        """Do what is due with discriminators after a round; the one that newcomers begin with."""

    # GANStrategy, ExchangingStrategy

    @property
    def generator(self) -> GeneratorHalf:
        """The server's half."""
        return self.server.of(_ONE)

    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        return {GEN: (), DISC: tuple(whole_net(self.shapes)[DISC])}

    def server_half(self, info: ClientInfo) -> GeneratorHalf:
        return self.generator

    def place(self, info: ClientInfo) -> None:
        return None

    def told(self, info: ClientInfo) -> Mapping[str, Scalar]:
        return {}

    def iteration_seconds(self, fleet: Fleet) -> float:
        return feedback_seconds(
            self.costs,
            fleet,
            batches=self.batches(round(fleet.clients.sum())),
            given=2 if self.apart else 1,
            disc_s=self.disc_seconds(fleet),
        )

    def disc_seconds(self, fleet: Fleet) -> np.ndarray:
        """(G,) that clients compute in an iteration; nan where they take no part."""
        return passes_seconds(self.costs.disc, fleet, self.passes[DISC].forward)

    def largest_frame(self) -> int:
        half = self.generator
        return max(exchanged_bytes(half.exchanges(None), half.dtype, self.config.coding))

    def checkpoint(self, server_round: int) -> Checkpoint:
        return replace(super().checkpoint(server_round), servers=self.server.checkpoint())

    def take_up(self, checkpoint: Checkpoint) -> None:
        super().take_up(checkpoint)
        self.server.restore({_ONE: checkpoint.servers[_ONE]}, {})

    def known(self, clients: list[ClientInfo]) -> Mapping[int, Known]:
        config = self.config
        frames = usual_feedback(
            config.net_spec,
            whole_nets(config.net_spec, self.models[_ONE]),
            batch_size=config.batch_size,
            seed=config.seed,
        )
        return {info.number: Known(frames) for info in clients}

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        numbers = [update.info.number for update in updates]
        net = whole_net(self.shapes)
        generator = select_blocks(self.generator.state(), {GEN: net[GEN]})
        disc = self.discriminator(server_round, updates)
        return Combined(
            {_ONE: dict(sorted({**generator, **disc}.items()))},
            dict.fromkeys(numbers, _ONE),
            dict.fromkeys(numbers, 1 / len(numbers)),
        )
