"""Base of strategies whose clients exchange tensors with the server in every iteration."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flwr.common import Config, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.defences.guarded import Guarded, Known
from huscf_flwr.errors import UserError
from huscf_flwr.procedure import ClientTraining, ServerHalf, exchanged_bytes
from huscf_flwr.remote.control import RunnerLost
from huscf_flwr.remote.kit import read_runner_kit
from huscf_flwr.remote.runners import Job, Place, RemoteRunners
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from huscf_flwr.runner.cohorts import share
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.pace import Progress
from huscf_flwr.runner.runner import Runner
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.runner.tokens import new_token
from huscf_flwr.split.stacked import stacker_on
from huscf_flwr.system.cpu import torch_device
from huscf_flwr.wire.codings import EXACT
from huscf_flwr.wire.frame_server import FrameServer
from strategies.base import GANStrategy
from strategies.crossing import Crossing

log = logging.getLogger("huscf_flwr.strategy")


class ExchangingStrategy(GANStrategy):
    """Has a runner, and tells it each round which clients train with which half of the server."""

    crosses: ClassVar[tuple[Crossing, ...]] = ()  # they say it themselves
    elsewhere: ClassVar[bool] = False
    """Whether the server's halves are `Segments`, which runners elsewhere can compute."""

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
        if config.runners and not serve:
            raise UserError(
                f'runners="{config.runners}": huscf train computes all in its own process: leave '
                "runners empty, or use flwr run"
            )
        if config.runners and not self.elsewhere:
            raise UserError(
                f'runners="{config.runners}": they compute split nets, and no other server\'s '
                f"part: leave runners empty with strategy={config.strategy}"
            )
        self.address = ""
        self._frames: FrameServer | None = None
        self._settings = RunnerSettings(
            cohort=config.cohort_size,
            straggler_timeout=config.straggler_timeout,
            round_timeout=config.round_timeout,
            at_once=1 if config.runners else 0,  # they meet in one order
        )
        self.runner: Runner | RemoteRunners | InProcessRunner
        if not serve:
            self.runner = InProcessRunner(
                config.cohort_size,
                config.coding,
                stacker_on(torch_device(config.device)) if config.coding is EXACT else None,
            )
        elif config.runners:
            kit = read_runner_kit(Path(base_dir) / config.runner_kit)
            self.runner = RemoteRunners(
                config.runner_addresses, kit, config.start_timeout, log.warning
            )
        else:
            self.runner = Runner(self._settings, log.warning)

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
            self._frames = FrameServer(self.runner, bind, self.largest_frame(), self.config.coding)
            host = bind.rpartition(":")[0]
            self.address = self.config.runner_address or f"{host}:{self._frames.port}"
            log.info("the runner listens on %s:%d, by TLS", host, self._frames.port)
        elif isinstance(self.runner, RemoteRunners):
            config = self.config
            self.runner.begin(
                Job(
                    config.net_spec,
                    config.batch_size,
                    config.learning_rate,
                    self._settings,
                    self.largest_frame(),
                    config.runner_sync_every,
                    config.wire,
                )
            )
        return super().initialize_parameters(client_manager)

    def question(self) -> Config:
        place, token, seconds = self._here, "", self.config.start_timeout
        if isinstance(self.runner, RemoteRunners):
            try:
                place, token = self.runner.echo(seconds)
            except RunnerLost as lost:
                raise self._lost(str(lost)) from None
        elif isinstance(self.runner, Runner):
            token = self.runner.echo_token(seconds)
        return {**super().question(), **_where(place, token)}

    @property
    def _here(self) -> Place:
        """Where the runner of this process is; nowhere, where clients need none."""
        return Place(self.address, self._frames.certificate if self._frames is not None else "")

    def _place_of(self, info: ClientInfo) -> Place:
        """Where a client of the open round finds its runner."""
        if isinstance(self.runner, RemoteRunners):
            return self.runner.place_of(info.number)
        return self._here

    def open_round(
        self, server_round: int, clients: list[ClientInfo], iterations: int
    ) -> dict[int, Config]:
        tokens = {info.number: new_token() for info in clients}
        halves = self._halves(clients)
        plans = [
            SessionPlan(
                tokens[info.number],
                info.number,
                halves[info.number],
                self.place(info),
                iterations,
                device=info.part is None,
            )
            for info in clients
        ]
        try:
            self.runner.open_round(server_round, plans)
            return {
                info.number: {
                    **self.told(info),
                    **_where(self._place_of(info), tokens[info.number]),
                }
                for info in clients
            }
        except RunnerLost as lost:
            raise self._lost(f"round {server_round}: {lost}") from None

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
        try:
            outcomes = self.runner.close_round()
        except RunnerLost as lost:
            raise self._lost(str(lost)) from None
        results = {o.client: o.result for o in outcomes if o.result is not None}
        return results, {o.client: o.failure for o in outcomes if o.failure is not None}

    def train_in_process(
        self, clients: Mapping[int, ClientTraining], workers: Executor
    ) -> Mapping[int, BaseException]:
        assert isinstance(self.runner, InProcessRunner)
        return self.runner.train(clients, workers)

    def progress(self) -> Progress:
        try:
            return self.runner.progress()
        except RunnerLost as lost:
            return Progress(0, 0, str(lost))

    def exchanged(self, info: ClientInfo) -> tuple[int, int]:
        both_ways = self._bytes(info)
        return sum(both_ways[::2]), sum(both_ways[1::2])

    def _bytes(self, info: ClientInfo) -> list[int]:
        half = self.server_half(info)
        return exchanged_bytes(half.exchanges(self.place(info)), half.dtype, self.config.coding)

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


def _where(place: Place, token: str) -> Config:
    """For a client: where the runner is, what it shows, and what it has to be shown."""
    return {
        "runner-address": place.address,
        "runner-certificate": place.certificate,
        "token": token,
    }
