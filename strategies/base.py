"""What all strategies share: meeting the clients, a round's instructions and results, records."""

import time
from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from flwr.common import (
    Config,
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from torch import Tensor

from huscf_flwr.clients.base import GANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import GEN, State, initial_state, net_shapes, select_blocks, to_arrays
from huscf_flwr.own_settings import NoSettings, read_own
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.report.checkpoint import Checkpoint, checkpoint_to_resume, states_of_clients
from huscf_flwr.report.records import ClientInfo, RoundRecord
from huscf_flwr.report.writer import RunReport
from huscf_flwr.runner.pace import Progress
from huscf_flwr.split.cuts import Cut
from huscf_flwr.system.cpu import cores
from huscf_flwr.system.machine import cores_here
from strategies.costing import CostingStrategy
from strategies.costs import message_bytes
from strategies.crossing import PARAMETERS, Crossing
from strategies.defences import Defences
from strategies.devices import ClientDevices
from strategies.evaluating import EvaluatingStrategy
from strategies.failures import FitFailures, RoundLost, explain
from strategies.returned import check_returns
from strategies.roster import Roster
from strategies.scoring import Scoring
from strategies.updates import Combined, Update, good_updates

_MEET_AT_A_TIME = 64


class GANStrategy(CostingStrategy, EvaluatingStrategy):
    """Base of the strategies. Subclasses say what clients hold and how updates are combined.

    Every order and every seed follows a client's number in the roster, never Flower's random ids.
    """

    client_class: ClassVar[type[GANClient]]
    settings: Any = NoSettings()
    """A dataclass of what runs may set by `strategy-settings`, see `own_settings`: of a class,
    with the defaults; of the strategy of a run, as that has set them."""
    crosses: ClassVar[tuple[Crossing, ...]] = (PARAMETERS,)
    """All that crosses between clients and server; a test holds our strategies to it."""

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """Prepare; nothing is computed before the clients are there.

        `restored` is the checkpoint that `resume` names, None without; what a subclass added to
        it, the subclass takes from there.

        Parameters
        ----------
        config: the run config.
        report: where rounds are recorded.
        base_dir: folder that relative data paths in the config start from.
        serve: whether clients are elsewhere, and anything they dial must listen.

        Raises
        ------
        UserError: a setting is unknown or impossible; the net cannot be built as configured; the
            run to resume has no checkpoint, another strategy or net, or all the rounds; or
            Inception's weights cannot be had.
        """
        check_returns(self)
        self.settings = read_own(self.settings, config.strategy_settings)
        self.config = config
        self.report = report
        self.base_dir = base_dir
        self.shapes = net_shapes(config.net_spec)
        self.models: dict[int, State] = {0: initial_state(config.net_spec, config.seed)}
        self.assignment: dict[int, int] = {}
        self.held: dict[int, State] = {}  # what single clients have, by number; is saved
        self.rounds_before = 0
        self.restored: Checkpoint | None = None
        self.defences = Defences(config, known_lots=not serve)
        self._before: Checkpoint | None = None
        self._state_places: Config = {}
        self._resumed: Path | None = None
        if config.resume:
            self._resumed = (Path(base_dir) / config.resume).resolve()
            kinds = [kind for kind in type(self).__mro__ if issubclass(kind, GANStrategy)]
            same = [kind.__name__ for kind in kinds if kind.checkpoint is type(self).checkpoint]
            net, rounds = self.models[0], config.num_server_rounds
            found = checkpoint_to_resume(self._resumed, same, net, rounds)
            GANStrategy.take_up(self, found)  # subclasses take up what they add when they can
            self.rounds_before, self.restored = found.round, found
        self.devices = ClientDevices(config, base_dir)
        self._scoring = Scoring(config, base_dir, threads=cores_here() if serve else cores())
        # In one process as many as share an iteration: they measure what each will get of it.
        at_a_time = _MEET_AT_A_TIME
        if not serve and config.cohort_size is not None:
            at_a_time = min(at_a_time, config.cohort_size)
        before = self.restored
        known = (before.nodes, before.partitions) if before is not None else ()
        self.roster = Roster(config, self.question, self.choose_cuts, at_a_time, *known)
        self._round_started = 0.0
        self._iterations = 0
        self._told_bytes: dict[int, int] = {}
        self._given: list[tuple[ClientInfo, State]] = []
        self._record: RoundRecord | None = None

    # What a strategy decides

    def choose_cuts(self, clients: list[ClientInfo]) -> Mapping[int, Cut | None]:
        """The cut of each client, by number; None where it holds the nets whole, as here.

        Called with the clients that are there at first, and with those that come later.
        """
        return {info.number: None for info in clients}

    def question(self) -> Config:
        """What clients are told when they are asked who they are."""
        return {"base-dir": self.base_dir}

    @abstractmethod
    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        """Indices of the blocks that a client trains, per net."""

    def begins_with(self, info: ClientInfo) -> State:
        """What a client begins the next round with: its blocks, of its cluster's net."""
        return select_blocks(self.model_of(self.cluster_of(info)), self.client_blocks(info))

    def also_due(self) -> State:
        """What clients return besides their blocks, with the shapes and dtypes that are due."""
        return {}

    @abstractmethod
    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        """Cluster, weigh and average a round's updates, which come in the clients' order."""

    def check_clients(self, clients: list[ClientInfo]) -> None:
        """Raise `UserError` where the clients that are there at first cannot train like this."""

    def initial_cluster(self, info: ClientInfo) -> int:
        """The cluster of a client that has been in no round."""
        return min(self.models)

    def generator_of(self, info: ClientInfo, cluster: int) -> State:
        return select_blocks(self.models[cluster], {GEN: range(len(self.shapes.gen))})

    def checkpoint(self, server_round: int) -> Checkpoint:
        """What it takes to go on after this round."""
        infos = self.roster.clients.values()
        cuts = {info.number: str(info.cut) for info in infos if info.cut is not None}
        nodes = {c: i.number for c, i in self.roster.clients.items() if i.part is None}
        return Checkpoint(
            server_round,
            self.models,
            self.assignment.copy(),
            clients=self.held.copy(),
            cuts=cuts,
            nodes=nodes,
            guard=self.defences.guard.state(),
            strategy=type(self).__name__,
            partitions=self.roster.partitions,
        )

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go back to where the nets were in a checkpoint of this run: a round is repeated."""
        self.models, self.assignment = checkpoint.models, checkpoint.assignment.copy()
        self.held = checkpoint.clients.copy()
        self.defences.guard.restore(checkpoint.guard)

    def open_round(
        self, server_round: int, clients: list[ClientInfo], iterations: int
    ) -> dict[int, Config]:
        """Get ready for a round; what to tell each client beyond what all are told."""
        return {}

    def close_round(self) -> tuple[dict[int, Tensor], dict[int, str]]:
        """End the round: activation, or reason of failure, of clients where there is one."""
        return {}, {}

    def train_in_process(
        self, clients: Mapping[int, ClientTraining], workers: Executor
    ) -> Mapping[int, BaseException]:
        """Train the open round with clients of this process, where the strategy does not `serve`.

        Returns
        -------
        Why clients are out, by number: what they raised, or what was wrong with what they sent.
        """
        running = {number: workers.submit(part.alone) for number, part in clients.items()}
        errors = {number: future.exception() for number, future in running.items()}
        return {number: error for number, error in errors.items() if error is not None}

    def progress(self) -> Progress:
        """Where the round stands."""
        return Progress(0, self._iterations * len(self._given), "clients train on their own")

    def summary(self) -> dict[str, Any]:
        """What the strategy adds to summary.json."""
        return {"latency": self.latency()}

    def close(self) -> None:
        """Release what the strategy holds open."""

    def finish(self) -> None:
        """Score the last round's generators in full, and write the run's results.

        Call it once, after the last round.

        Raises
        ------
        UserError: there was no round, or its results cannot be written.
        """
        if self._record is None:
            raise UserError("no round was finished: there is nothing to report")
        try:
            self.report.generators(self._record)  # again, as the disk might have been full
        except OSError as error:
            raise UserError(f"{self.report.folder}: cannot be written: {cause(error)}") from None
        record, generator_of = self._record, self.generator_of
        record = replace(record, scores=self._scoring.by_server(record, generator_of, full=True))
        record = replace(record, by_cut=self._scoring.by_cut(record, generator_of))
        nearest = partial(self._scoring.nearest, record, generator_of)
        self.report.finish(record, self.summary(), nearest)

    def record_round(self, server_round: int) -> None:
        """Report a round, and save what it takes to go on after it.

        Call it when the round's evaluation is over: then it has all its scores, and clusters are
        those of the next.
        """
        if record := self._finished(server_round):
            scoring_s = time.monotonic() - self._round_started - record.seconds
            self.report.record(replace(record, scoring_s=scoring_s))
            self.report.checkpoint(self.checkpoint(record.round))

    # Flower's lifecycle

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        """Wait for the clients, ask who they are, and start from fresh parameters."""
        self.report.start(self._resumed, self.rounds_before)
        self._state_places |= states_of_clients(self.report.folder, self._resumed)
        clients = list(self.roster.gather(client_manager).values())
        self.check_clients(clients)
        self.report.meet(info.domain for info in clients if info.domain)
        return self._global_parameters()

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Instructions for every client: its blocks of its cluster's net, and the round."""
        server_round += self.rounds_before
        present = self.roster.present(client_manager, without=self.defences.excluded)
        present = self.roster.drawn(present, server_round)
        self._before = self.checkpoint(server_round - 1)
        infos = list(present.values())
        largest = max(info.size for info in infos)
        batches = -(-largest // self.config.batch_size)
        self._iterations = self.config.local_epochs * batches
        self._round_started = time.monotonic()
        extras = self.open_round(server_round, infos, self._iterations)
        self._given = [(info, self.begins_with(info)) for info in infos]
        instructions = []
        shared: dict[tuple[int, ...], Parameters] = {}  # many begin with the same tensors
        for proxy, (info, own) in zip(present, self._given, strict=True):
            same = tuple(id(own[name]) for name in sorted(own))
            if same not in shared:
                shared[same] = ndarrays_to_parameters(to_arrays(own))
            config: Config = {
                **self.config.found,
                "round": server_round,
                "client": info.number,
                "iterations": self._iterations,
                "iterations-before": (server_round - 1) * self._iterations,
                **GANStrategy.question(self),
                **self._state_places,
                **extras.get(info.number, {}),
            }
            fit = FitIns(shared[same], config)
            self._told_bytes[info.number] = message_bytes(fit)
            instructions.append((proxy, fit))
        return instructions

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: FitFailures,
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Check the updates at the door, combine the good ones, and keep the clusters' nets.

        Raises
        ------
        RoundLost: no client finished the round, or it ended in nets that generate nothing.
        """
        server_round += self.rounds_before
        activations, reasons = self.close_round()
        returned = {self.roster.number_of(proxy): result for proxy, result in results}
        updates = self.defences.in_line(
            good_updates(self._given, returned, self.due, activations, reasons), reasons
        )
        explain(server_round, reasons, failures)
        if not updates:
            causes = "; ".join(sorted(set(reasons.values()))) or str(failures[:1])
            raise self._lost(f"round {server_round}: no client finished it: {causes}")
        combined = self.combine(server_round, updates)
        if (problem := self.defences.spoilt(self.models, combined.models)) is not None:
            raise self._lost(f"round {server_round}: {problem}")
        for number, reason in self.defences.out_again_and_again():
            self.roster.leave_out(number, reason)
        self.assignment.update(combined.assignment)
        # A cluster whose clients all missed this round goes on with them when they come back.
        absent = {c: self.models[c] for c in self.assignment.values() if c in self.models}
        self.models = dict(sorted((absent | combined.models).items()))
        clients = [combined.part_of(update) for update in updates]
        seconds = time.monotonic() - self._round_started
        sent = {number: message_bytes(result) for number, result in returned.items()}
        costs = self._costs([update.info for update in updates], sent)
        self._record = RoundRecord(
            server_round, seconds, self._iterations, clients, reasons, combined.models, costs
        )
        return self._global_parameters(), {"seconds": seconds}

    # Helpers

    def model_of(self, cluster: int) -> State:
        """The whole net of a cluster; of one that is unknown, the first."""
        return self.models.get(cluster, self.models[min(self.models)])

    def cluster_of(self, info: ClientInfo) -> int:
        """The cluster with which a client trains in the next round."""
        return self.assignment.get(info.number, self.initial_cluster(info))

    def _lost(self, problem: str) -> RoundLost:
        if self._before is not None:
            self.take_up(self._before)
        return RoundLost(problem)

    def due(self, info: ClientInfo) -> State:
        """What a client has to return from a round, with the shapes and dtypes that are due."""
        own = select_blocks(next(iter(self.models.values())), self.client_blocks(info))
        return {**own, **self.also_due()}

    def _global_parameters(self) -> Parameters:
        return ndarrays_to_parameters(to_arrays(self.models[min(self.models)]))
