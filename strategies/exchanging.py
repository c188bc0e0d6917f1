"""Base of strategies whose clients exchange tensors with the server in every iteration."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar

import numpy as np
from flwr.common import Config, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.defences.guarded import Guarded, Known
from huscf_flwr.procedure import ClientTraining, ServerHalf, exchanged_bytes
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from huscf_flwr.runner.cohorts import share
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.pace import Progress
from huscf_flwr.runner.runner import Runner
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.runner.tokens import new_token
from huscf_flwr.wire.grpc import FrameServer
from strategies.base import GANStrategy
from strategies.crossing import Crossing

log = logging.getLogger("huscf_flwr.strategy")


class ExchangingStrategy(GANStrategy):
    """Has a runner, and tells it each round which clients train with which half of the server."""

    crosses: ClassVar[tuple[Crossing, ...]] = ()  # they say it themselves

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """Prepare; the runner listens when the run begins.

        Parameters
        ----------
        config, report, base_dir, serve: see `GANStrategy`.

        Raises
        ------
        UserError: see `GANStrategy`.
        """
        super().__init__(config, report, base_dir, serve=serve)
        self.address = ""
        self._frames: FrameServer | None = None
        settings = RunnerSettings(
            cohort=config.cohort_size,
            straggler_timeout=config.straggler_timeout,
            round_timeout=config.round_timeout,
        )
        self.runner: Runner | InProcessRunner = (
            Runner(settings, log.warning) if serve else InProcessRunner(config.cohort_size)
        )

    # What a strategy decides

    @abstractmethod
    def server_half(self, info: ClientInfo) -> ServerHalf:
        """The server's half that a client trains with in the next round."""

    @abstractmethod
    def place(self, info: ClientInfo) -> Any:
        """What that half has to know of the client."""

    @abstractmethod
    def told(self, info: ClientInfo) -> Mapping[str, Scalar]:
        """What the client has to know for the next round, besides where the runner is."""

    @abstractmethod
    def largest_frame(self) -> int:
        """Bytes of the tensors of the largest frame that any client may exchange in this run."""

    def known(self, clients: list[ClientInfo]) -> Mapping[int, Known]:
        """What is known of what these clients send in the next round, by number.

        Of nobody, if nothing is; then it is not bounded.
        """
        return {}

    # GANStrategy

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        """Listen, then as `GANStrategy`; raises `UserError` if the port is in use, too."""
        if isinstance(self.runner, Runner):
            bind = self.config.runner_bind
            self._frames = FrameServer(self.runner, bind, self.largest_frame())
            host = bind.rpartition(":")[0]
            self.address = self.config.runner_address or f"{host}:{self._frames.port}"
            log.info("the runner listens on %s:%d, by TLS", host, self._frames.port)
        return super().initialize_parameters(client_manager)

    def question(self) -> Config:
        token = ""
        if isinstance(self.runner, Runner):
            token = self.runner.echo_token(self.config.start_timeout)
        return {**super().question(), **self._where(token)}

    def _where(self, token: str) -> Config:
        """Where the runner is, what it shows, and what it has to be shown."""
        certificate = self._frames.certificate if self._frames is not None else ""
        return {
            "runner-address": self.address,
            "runner-certificate": certificate,
            "token": token,
        }

    def open_round(
        self, server_round: int, clients: list[ClientInfo], iterations: int
    ) -> dict[int, Config]:
        tokens = {info.number: new_token() for info in clients}
        halves = self._halves(clients)
        self.runner.open_round(
            server_round,
            [
                SessionPlan(
                    tokens[info.number],
                    info.number,
                    halves[info.number],
                    self.place(info),
                    iterations,
                    device=info.part is None,
                )
                for info in clients
            ],
        )
        return {
            info.number: {**self.told(info), **self._where(tokens[info.number])}
            for info in clients
        }

    def _halves(self, clients: list[ClientInfo]) -> dict[int, ServerHalf]:
        """The server's half of each client, guarded where it is known what they send."""
        halves = {info.number: self.server_half(info) for info in clients}
        guard = self.defences.guard
        guard.begin_round()
        if not self.defences.on or not (known := self.known(clients)):
            return halves
        guarded = {}
        for half in set(halves.values()):
            peers = [number for number, own in halves.items() if own is half]
            guarded[half] = Guarded(half, guard, known, peers)
        return {number: guarded[half] for number, half in halves.items()}

    def close_round(self) -> tuple[dict[int, Tensor], dict[int, str]]:
        outcomes = self.runner.close_round()
        results = {o.client: o.result for o in outcomes if o.result is not None}
        return results, {o.client: o.failure for o in outcomes if o.failure is not None}

    def train_in_process(
        self, clients: Mapping[int, ClientTraining], workers: Executor
    ) -> Mapping[int, BaseException]:
        assert isinstance(self.runner, InProcessRunner)
        return self.runner.train(clients, workers)

    def progress(self) -> Progress:
        return self.runner.progress()

    def exchanged(self, info: ClientInfo) -> tuple[int, int]:
        both_ways = self._bytes(info)
        return sum(both_ways[::2]), sum(both_ways[1::2])

    def _bytes(self, info: ClientInfo) -> list[int]:
        half = self.server_half(info)
        return exchanged_bytes(half.exchanges(self.place(info)), half.dtype)

    def cohorts(self) -> list[float]:
        halves = Counter(self.server_half(info) for info in self.roster.clients.values())
        sizes: list[float] = []
        for of_half in halves.values():
            clients = self.config.taking_part(of_half)
            count = -(-clients // share(clients, self.config.cohort_size))
            sizes += [clients / count] * count
        return sizes

    def latency(self) -> dict[str, Any]:
        pace = self.runner.pace
        return {**super().latency(), "measured_s": pace and pace.seconds}

    def summary(self) -> dict[str, Any]:
        clients = list(self.roster.clients.values())
        sent = np.mean([self._bytes(info) for info in clients], axis=0)
        half, place = self.server_half(clients[0]), self.place(clients[0])
        names = [spec.name.lower() for spec in half.exchanges(place)]
        return {
            **super().summary(),
            "bytes_per_client_iteration": round(sent.sum()),
            "bytes_per_exchange": {
                name: {"up": round(up), "down": round(down)}
                for name, (up, down) in zip(names, sent.reshape(-1, 2), strict=True)
            },
        }

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self.runner.close()
