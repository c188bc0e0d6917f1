"""Base of strategies whose clients are in clusters, as the run key `clusters` says."""

import logging

import numpy as np
from flwr.common import EvaluateIns, EvaluateRes, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.clustering.clusters import cluster, grouped, keep_labels
from huscf_flwr.clustering.neighbours import find_clusters
from huscf_flwr.config import AUTO, CLIENTS, DOMAINS, RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from strategies.base import GANStrategy
from strategies.failures import explain
from strategies.probing import Probing
from strategies.updates import Update

log = logging.getLogger("huscf_flwr.strategy")


class GroupingStrategy(GANStrategy):
    """Says which cluster each client is in.

    With `clusters="auto"` all clients are probed when the warm-up ends, and again when there are
    new ones. A number of clusters is found as in the paper, after every round: by K-means of what
    training shows.
    """

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """See `GANStrategy`."""
        super().__init__(config, report, base_dir, serve=serve)
        self._domains = [source.name for source in config.data_settings(base_dir).sources]
        self._probing = Probing(config, self.shapes)
        self._probed: list[ClientInfo] = []
        past_warmup = self.rounds_before > self._first_probe
        self._placed = set(self.assignment) if past_warmup else set[int]()

    @property
    def _first_probe(self) -> int:
        """The round after which clients are probed."""
        return max(1, self.config.warmup_rounds)

    def assign(self, server_round: int, updates: list[Update]) -> dict[int, int]:
        """Cluster of each client after a round.

        Where a number of clusters has to be found, one for all while warming up, then by
        activation: a client whose activation is missing stays where it was.
        """
        wanted = self.config.clusters
        if not wanted.isdecimal():
            return {update.info.number: self.cluster_of(update.info) for update in updates}
        numbers = [update.info.number for update in updates]
        if server_round <= self.config.warmup_rounds:
            return dict.fromkeys(numbers, 0)
        seen = [update for update in updates if update.activation is not None]
        if not seen:
            return {number: self.assignment.get(number, 0) for number in numbers}
        labels = cluster(stacked(seen), min(int(wanted), len(seen)), self.config.seed)
        fresh = {u.info.number: int(c) for u, c in zip(seen, labels, strict=True)}
        found = keep_labels(fresh, self.assignment)
        names = set(found.values())
        rest = {n: self.assignment.get(n, 0) for n in numbers if n not in found}
        return found | {n: c if c in names else min(names) for n, c in rest.items()}

    # GANStrategy

    def check_clients(self, clients: list[ClientInfo]) -> None:
        wanted = self.config.clusters
        if wanted == DOMAINS:
            for info in clients:
                if not info.domain:
                    raise UserError(
                        f'clusters="{DOMAINS}": client {info.number} has data of its own; domains '
                        "are known in simulation only"
                    )
        elif wanted.isdecimal() and int(wanted) > len(clients):
            raise UserError(f"clusters={wanted}: more than the {len(clients)} clients")

    def initial_cluster(self, info: ClientInfo) -> int:
        if self.config.clusters == CLIENTS:
            return info.number
        if self.config.clusters == DOMAINS:
            return self._domains.index(info.domain) if info.domain else len(self._domains)
        return super().initial_cluster(info)

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """A probe, where one is due; else see `GANStrategy`."""
        done = server_round + self.rounds_before
        self._probed = []
        if (
            self.config.clusters == AUTO
            and self._first_probe <= done < self.config.num_server_rounds
        ):
            present = self.roster.connected(client_manager)
            if not self._placed.issuperset(info.number for info in present.values()):
                self._probed = list(present.values())
                return self._probing.instructions(
                    present, self.models[min(self.models)], self.base_dir
                )
        return super().configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Find clusters by the probe, where there was one; else see `GANStrategy`.

        Who gave no good one stays where it was, and is asked again.
        """
        if not self._probed:
            return super().aggregate_evaluate(server_round, results, failures)
        by_number = {self.roster.number_of(proxy): result for proxy, result in results}
        model = self.models[min(self.models)]
        activations, reasons = self._probing.activations(self._probed, by_number, model)
        explain(server_round + self.rounds_before, reasons, failures)
        if activations:
            labels = find_clusters(list(activations.values()))
            fresh = dict(zip(activations, map(int, labels), strict=True))
            self.assignment.update(keep_labels(fresh, self.assignment))
            self._placed.update(activations)
            sizes = [len(members) for members in grouped(fresh).values()]
            log.info("found %d cluster(s), of %s clients", len(sizes), ", ".join(map(str, sizes)))
        return None, {}


def stacked(updates: list[Update]) -> np.ndarray:
    """The activations of those updates that have one, (clients, C, H, W)."""
    return np.stack([u.activation.cpu().numpy() for u in updates if u.activation is not None])
