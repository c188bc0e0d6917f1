"""HuSCF: split training with the server's segments, clusters by activation, KLD weights."""

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from flwr.common import Scalar
from torch import Tensor

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.clustering.averages import aggregate_apart, aggregate_shared
from huscf_flwr.clustering.clusters import grouped
from huscf_flwr.clustering.kld_weights import divergences, weights
from huscf_flwr.config import RunConfig
from huscf_flwr.defences.guarded import Known
from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import GEN, PartialGAN, State, initial_state, select_blocks
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.measure import server_flops_per_s
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.procedure import exchanged_bytes
from huscf_flwr.remote.runners import RemoteRunners
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from huscf_flwr.split.cuts import Cut, client_blocks, end_limits
from huscf_flwr.split.segments import Segments, all_segments
from huscf_flwr.split.spot_check import SpotCheck
from huscf_flwr.split.usual import usual_frames
from huscf_flwr.system.cpu import cores, torch_device, use_threads
from huscf_flwr.wire.links import MAX_FRAME_BYTES
from strategies.crossing import PARAMETERS, PROBE, Crossing, What
from strategies.exchanging import ExchangingStrategy
from strategies.grouping import GroupingStrategy, stacked
from strategies.planner import CutPlanner
from strategies.server_blocks import ServerBlocks
from strategies.updates import Combined, Update

log = logging.getLogger("huscf_flwr.strategy")


class HuSCF(GroupingStrategy, ExchangingStrategy):
    """The paper's strategy. Its steps are `assign`, `weigh`, `average`: override any of them."""

    client_class: ClassVar[type[SplitGANClient]] = SplitGANClient
    elsewhere = True
    crosses = (
        Crossing(What.ACTIVATIONS, sent=True, received=True, in_iterations=True),
        Crossing(What.GRADIENTS, sent=True, received=True, in_iterations=True),
        PARAMETERS,
        PROBE,
    )

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """Build the server's segments.

        Parameters
        ----------
        config, report, base_dir, serve: see `GANStrategy`; the runner listens on `runner-bind`.

        Raises
        ------
        UserError: a cut is impossible, or the run to resume has other server blocks.
        """
        super().__init__(config, report, base_dir, serve=serve)
        self._paced = False
        self._nets_at_first: dict[int, PartialGAN] = {}
        self.trained_in: dict[int, int] = {}
        """Clusters that clients have last trained in, since they have been told apart."""
        self.planner = CutPlanner(config, self.shapes, self.devices, self._measure_server)
        self.server = ServerBlocks(
            self._new_segments,
            shared=config.server_blocks == "shared",
            afresh=self.given,
        )
        if self.restored is not None:
            try:
                self.take_up(self.restored)
            except (KeyError, RuntimeError, ValueError) as error:
                raise UserError(
                    f'resume="{config.resume}": its server blocks do not fit: {cause(error)}'
                ) from None
        here = f"{torch_device(config.device)} with {cores()} threads"
        log.info(
            "server segments on %s; an iteration is of %s clients",
            f"the runners at {config.runners}" if config.runners else here,
            "all" if config.cohort_size is None else f"up to {config.cohort_size}",
        )

    def _new_segments(self) -> Segments:
        """All blocks that any cut leaves to the server, as they are at the beginning of a run."""
        return all_segments(
            self.config.net_spec,
            initial_state(self.config.net_spec, self.config.seed),
            batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
            device=torch_device(self.config.device),
        )

    def _measure_server(self, cohort: int) -> float:
        if isinstance(self.runner, RemoteRunners):
            return self.runner.measure(cohort)
        spare = self._new_segments()

        def measure() -> float:
            use_threads(cores())
            return server_flops_per_s(spare, self.config.net_spec, self.config.batch_size, cohort)

        with ThreadPoolExecutor(1) as pool:  # as the runner, which has a thread of its own
            return pool.submit(measure).result()

    # The three steps

    def weigh(
        self, server_round: int, updates: list[Update]
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Weights of these clients among themselves, and their divergences.

        By size alone while warming up; a client without an activation counts as average.
        """
        numbers = [update.info.number for update in updates]
        sizes = np.array([update.info.size for update in updates], dtype=float)
        klds = np.zeros(len(updates))
        seen = [i for i, update in enumerate(updates) if update.activation is not None]
        if seen:
            klds[seen] = divergences(stacked([updates[i] for i in seen]))
            klds[[i for i in range(len(updates)) if i not in seen]] = klds[seen].mean()
        beta = 0.0 if server_round <= self.config.warmup_rounds else self.config.kld_beta
        shares = weights(sizes, klds, beta)
        return (
            dict(zip(numbers, map(float, shares), strict=True)),
            dict(zip(numbers, map(float, klds), strict=True)),
        )

    def average(
        self,
        updates: list[Update],
        groups: Mapping[int, list[int]],
        cluster_weights: Mapping[int, float],
        global_weights: Mapping[int, float],
    ) -> tuple[dict[int, State], dict[int, State]]:
        """The server's new blocks by `ServerBlocks.key`, and the whole net of each cluster."""
        states = {update.info.number: update.state for update in updates}
        halves = {u.info.number: self.server_half(u.info) for u in updates}
        served = {half: half.state() for half in dict.fromkeys(halves.values())}
        if self.server.shared:
            (server,) = served.values()
            new, models = aggregate_shared(
                server, states, groups, cluster_weights, global_weights, self.defences.average
            )
            return {self.server.key(cluster): new for cluster in groups}, models
        nets = {number: {**served[halves[number]], **own} for number, own in states.items()}
        models = aggregate_apart(nets, groups, cluster_weights, self.defences.average)
        return models, models

    # GANStrategy

    def choose_cuts(self, clients: list[ClientInfo]) -> Mapping[int, Cut | None]:
        planned = self.planner.plan
        cuts = self.planner.choose(clients)
        if self.restored is not None and self.config.cuts in SEARCHES:  # as they trained so far
            kept = {number: Cut.parse(cut) for number, cut in self.restored.cuts.items()}
            cuts = {number: kept.get(number, cut) for number, cut in cuts.items()}
        new = self.planner.plan is not planned and self.restored is None
        if new and self.planner.plan is not None:
            self.report.plan(self.planner.plan, str(self.devices))
        largest = max(max(self._frame_bytes(cut)) for cut in set(cuts.values()))
        if largest > MAX_FRAME_BYTES:
            raise UserError(
                f"batch-size={self.config.batch_size}: frames of {largest / 2**20:.0f} MiB exceed "
                f"the limit of {MAX_FRAME_BYTES / 2**20:.0f} MiB"
            )
        return cuts

    def largest_frame(self) -> int:
        limits = end_limits(self.shapes)
        cuts = [Cut(*(min(n, limit) for limit in limits)) for n in range(1, max(limits) + 1)]
        return min(max(max(self._frame_bytes(cut)) for cut in cuts), MAX_FRAME_BYTES)

    def _frame_bytes(self, cut: Cut) -> list[int]:
        half = self.server.of(min(self.models))
        return exchanged_bytes(half.exchanges(cut), half.dtype, self.config.coding)

    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        assert info.cut is not None
        return client_blocks(info.cut, self.shapes)

    def generator_of(self, info: ClientInfo, cluster: int) -> State:
        assert info.cut is not None
        server = self.server.of(cluster).state()
        served = select_blocks(server, {GEN: info.cut.gen(self.shapes).server})
        return super().generator_of(info, cluster) | served

    def server_half(self, info: ClientInfo) -> Segments:
        return self.server.of(self.cluster_of(info))

    def place(self, info: ClientInfo) -> Cut:
        assert info.cut is not None
        return info.cut

    def told(self, info: ClientInfo) -> Mapping[str, Scalar]:
        return {"cut": str(info.cut)}

    def checkpoint(self, server_round: int) -> Checkpoint:
        found = super().checkpoint(server_round)
        servers, trained_in = self.server.checkpoint(), self.trained_in.copy()
        return replace(found, servers=servers, trained_in=trained_in)

    def take_up(self, checkpoint: Checkpoint) -> None:
        super().take_up(checkpoint)
        self.trained_in = checkpoint.trained_in.copy()
        self.server.restore(checkpoint.servers, Counter(self.assignment.values()))

    def known(self, clients: list[ClientInfo]) -> Mapping[int, Known]:
        config, found = self.config, dict[int, Known]()
        infos = {info.number: info for info in clients}
        for cluster, members in grouped({i.number: self.cluster_of(i) for i in clients}).items():
            cuts = {number: self.place(infos[number]) for number in members}
            model = self.model_of(cluster)
            nets = self._nets_at_first.get(cluster) or whole_nets(config.net_spec, model)
            self._nets_at_first[cluster] = nets
            nets.load(model)
            frames, fooled = usual_frames(
                config.net_spec,
                nets,
                set(cuts.values()),
                batch_size=config.batch_size,
                seed=config.seed,
            )
            checks = {cut: SpotCheck(config.net_spec, nets, cut, fooled) for cut in frames}
            for number, cut in cuts.items():
                knows = self.told_apart(number) and self.trained_in.get(number) == cluster
                found[number] = Known(frames[cut], checks[cut], cluster if knows else None)
        return found

    def close_round(self) -> tuple[dict[int, Tensor], dict[int, str]]:
        found = super().close_round()
        pace = self.runner.pace
        if pace and not self._paced:
            log.info(self.planner.compare(pace))
            self._paced = True
        return found

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        infos = [update.info for update in updates if self.told_apart(update.info.number)]
        self.trained_in |= {info.number: self.cluster_of(info) for info in infos}
        assignment = self.assign(server_round, updates)
        groups = grouped(assignment)
        by_number = {update.info.number: update for update in updates}
        cluster_weights: dict[int, float] = {}
        klds: dict[int, float] = {}
        for members in groups.values():
            inside = self.weigh(server_round, [by_number[number] for number in members])
            cluster_weights.update(self.defences.shares(inside[0]))
            klds.update(inside[1])
        global_weights = self.defences.shares(self.weigh(server_round, updates)[0])
        servers, models = self.average(updates, groups, cluster_weights, global_weights)
        origins: dict[int, dict[int, float]] = {}
        for number, cluster in assignment.items():
            shares = origins.setdefault(self.server.key(cluster), {})
            old = self.server.key(self.cluster_of(by_number[number].info))
            shares[old] = shares.get(old, 0.0) + cluster_weights[number]
        self.server.update(servers, origins)
        self.server.keep({**self.assignment, **assignment}.values())
        return Combined(models, assignment, cluster_weights, klds)

    def fleet(self) -> Fleet | None:
        return None if self.planner.plan is None else self.planner.plan.fleet

    def iteration_seconds(self, fleet: Fleet) -> float:
        assert self.planner.plan is not None
        return self.planner.plan.predict(float(fleet.clients.sum()))

    def latency(self) -> dict[str, Any]:
        found, pace, plan = super().latency(), self.runner.pace, self.planner.plan
        if pace and plan:  # beside what was measured, for as many clients
            found["predicted_s"] = plan.predict(pace.clients)
        return found
