"""Base of strategies whose clients are in clusters, as the run key `clusters` says."""

import functools
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
from flwr.common import EvaluateIns, EvaluateRes, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.clustering.clusters import cluster, grouped, keep_labels, placed
from huscf_flwr.clustering.neighbours import find_clusters
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import State, initial_state
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.report.writer import RunReport
from huscf_flwr.run_keys import AUTO, CLIENTS, DOMAINS
from strategies.base import GANStrategy
from strategies.failures import EvaluateFailures, explain
from strategies.probing import Probing
from strategies.updates import Update

log = logging.getLogger("huscf_flwr.strategy")
_ATTEMPTS = 3


class GroupingStrategy(GANStrategy):
    """Says which cluster each client is in.

    With `clusters="auto"` all clients are probed when the warm-up ends, and later ones when they
    come. A number of clusters is found as in the paper, after every round: by K-means of what
    training shows. Where clusters have nets of their own, so that what they show differs anyway,
    clients hardly change their cluster any more.
    """

    def __init__(
        self, config: RunConfig, report: RunReport, base_dir: str, *, serve: bool = True
    ) -> None:
        """See `GANStrategy`."""
        super().__init__(config, report, base_dir, serve=serve)
        self._domains = [source.name for source in config.sources(base_dir)]
        self._probing = Probing(config, self.shapes)
        if self.restored is not None:
            self._probing.restore(self.restored.probe)
        self._asked: list[ClientInfo] = []
        self._attempts: Counter[int] = Counter()

    @property
    def given(self) -> bool:
        """Whether clusters are known from the first round on."""
        return self.config.clusters in (DOMAINS, CLIENTS)

    def told_apart(self, number: int) -> bool:
        """Whether a client's cluster is that of images like its own, as far as can be told."""
        return self.given or number in self._probing.found

    @property
    def probed(self) -> int:
        """How many clients have been probed."""
        return len(self._probing.found)

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

    def cluster_of(self, info: ClientInfo) -> int:
        return self.initial_cluster(info) if self.given else super().cluster_of(info)

    def model_of(self, cluster: int) -> State:
        if self.given and cluster not in self.models:
            return self._fresh
        return super().model_of(cluster)

    @functools.cached_property
    def _fresh(self) -> State:
        """What clusters begin with that are known from the first round on."""
        return initial_state(self.config.net_spec, self.config.seed)

    def checkpoint(self, server_round: int) -> Checkpoint:
        return replace(super().checkpoint(server_round), probe=self._probing.state())

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Probes, where some are due, of those clients whose cluster is to be found.

        These are all who have taken part in a round, or will in the next. Probes are in place of
        scores that might be due of clients with data of their own; else see `GANStrategy`.
        """
        done = server_round + self.rounds_before
        due = max(1, self.config.warmup_rounds) <= done < self.config.num_server_rounds
        present = self.roster.connected(client_manager)
        coming = self.roster.drawn(present, done + 1)
        new = {
            proxy: info
            for proxy, info in present.items()
            if (proxy in coming or info.number in self.assignment)
            and info.number not in self._probing.found
            and self._attempts[info.number] < _ATTEMPTS
        }
        self._asked = list(new.values()) if due and self.config.clusters == AUTO else []
        if not self._asked:
            return super().configure_evaluate(server_round, parameters, client_manager)
        self._attempts.update(info.number for info in self._asked)
        return self._probing.instructions(new, self.models[min(self.models)], self.base_dir)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: EvaluateFailures,
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Find the clusters of clients that were probed, if some were; else see `GANStrategy`.

        Others keep theirs. Who gave no good probe stays where it was, and is asked again, three
        times in all.
        """
        if not self._asked:
            return super().aggregate_evaluate(server_round, results, failures)
        by_number = {self.roster.number_of(proxy): result for proxy, result in results}
        before = {number: self.assignment[number] for number in self._probing.found}
        reasons = self._probing.take(self._asked, by_number)
        explain(server_round + self.rounds_before, reasons, failures)
        if known := self._probing.found:
            labels = find_clusters(list(known.values()))
            new = placed(dict(zip(known, map(int, labels), strict=True)), before)
            self.assignment.update(new)
            groups = grouped({number: self.assignment[number] for number in known})
            sizes = ", ".join(str(len(members)) for members in groups.values())
            log.info("found %d cluster(s), of %s clients", len(groups), sizes)
        return None, {}


def stacked(updates: list[Update]) -> np.ndarray:
    """The activations of those updates that have one, (clients, C, H, W)."""
    return np.stack([u.activation.cpu().numpy() for u in updates if u.activation is not None])
