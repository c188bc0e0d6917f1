"""Which cluster each client is in: as the run config gives it, or found by activations."""

from collections.abc import Mapping

import numpy as np

from huscf_flwr.clustering.clusters import cluster, keep_labels
from huscf_flwr.config import CLIENTS, DOMAINS, RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.report.records import ClientInfo
from strategies.updates import Update


class Grouping:
    """What the run key `clusters` says."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._domains = [source.name for source in config.data_settings(".").sources]

    def check(self, clients: list[ClientInfo]) -> None:
        """Raise `UserError` where these clients, all that are there, cannot be grouped so."""
        wanted = self._config.clusters
        if wanted == DOMAINS:
            for info in clients:
                if not info.domain:
                    raise UserError(
                        f'clusters="{DOMAINS}": client {info.number} has data of its own; domains '
                        "are known in simulation only"
                    )
        elif wanted.isdecimal() and int(wanted) > len(clients):
            raise UserError(f"clusters={wanted}: more than the {len(clients)} clients")

    def given(self, info: ClientInfo) -> int | None:
        """A client's cluster, where it need not be found."""
        if self._config.clusters == CLIENTS:
            return info.number
        if self._config.clusters == DOMAINS:
            return self._domains.index(info.domain) if info.domain else len(self._domains)
        return None

    def assign(
        self, server_round: int, updates: list[Update], before: Mapping[int, int]
    ) -> dict[int, int]:
        """Cluster of each client after a round.

        Where clusters have to be found: one for all while warming up, then by activation. A client
        whose activation is missing stays where it was.

        Parameters
        ----------
        server_round: from 1.
        updates: of the round, in the clients' order.
        before: cluster of each client so far, also of those that were not in this round.
        """
        given = {update.info.number: self.given(update.info) for update in updates}
        if known := {number: c for number, c in given.items() if c is not None}:
            return known
        numbers = list(given)
        if server_round <= self._config.warmup_rounds:
            return dict.fromkeys(numbers, 0)
        seen = [update for update in updates if update.activation is not None]
        if not seen:
            return {number: before.get(number, 0) for number in numbers}
        wanted = self._config.clusters
        k = min(int(wanted), len(seen)) if wanted.isdecimal() else None
        labels = cluster(stacked(seen), k, self._config.seed)
        fresh = {u.info.number: int(c) for u, c in zip(seen, labels, strict=True)}
        found = keep_labels(fresh, before)
        names = set(found.values())
        rest = {n: before.get(n, 0) for n in numbers if n not in found}
        return found | {n: c if c in names else min(names) for n, c in rest.items()}


def stacked(updates: list[Update]) -> np.ndarray:
    """The activations of those updates that have one, (clients, C, H, W)."""
    return np.stack([u.activation.cpu().numpy() for u in updates if u.activation is not None])
