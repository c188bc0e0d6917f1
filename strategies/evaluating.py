"""The part of the strategies that scores: on the server in simulation, else by the clients."""

from dataclasses import replace

import numpy as np
from flwr.common import EvaluateIns, EvaluateRes, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy

from huscf_flwr.config import RunConfig
from huscf_flwr.nets import State
from huscf_flwr.report.records import ClientInfo, ClientScores, RoundRecord
from strategies.failures import EvaluateFailures, explain
from strategies.roster import Roster
from strategies.scoring import Scoring


class EvaluatingStrategy(Strategy):
    """Answers Flower's questions about evaluation; subclasses set what it asks of them."""

    config: RunConfig
    roster: Roster
    models: dict[int, State]
    assignment: dict[int, int]
    rounds_before: int
    _scoring: Scoring
    _record: RoundRecord | None

    def generator_of(self, info: ClientInfo, cluster: int) -> State:
        """The generator that a client of a cluster has after a round: all its blocks."""
        raise NotImplementedError

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        """Where scores are due, score what the server knows to score.

        Returns
        -------
        The mean loss of the clients' generators, and the scores of each domain's main cluster as
        `<name>-<domain>`; None if the round was not finished.
        """
        record = self._finished(server_round)
        if record is None:
            return None
        if self.config.scores_due(record.round):
            record = replace(
                record, scores=self._scoring.by_server(record, self.generator_of, full=False)
            )
            self._record = record
        loss = float(np.mean([client.generator_loss for client in record.clients]))
        return loss, dict(record.main_values())

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Where scores are due, ask clients with data of their own for theirs.

        In simulation the server knows the domains, and scores in `evaluate`.
        """
        server_round += self.rounds_before
        if not self.config.scores_due(server_round):
            return []
        return self._scoring.instructions(
            self.roster.connected(client_manager),
            self.assignment,
            self.models,
            full=server_round == self.config.num_server_rounds,
        )

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: EvaluateFailures,
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Keep what clients found of their cluster's generator on their own held-out images.

        A client without good scores is named and left out.

        Returns
        -------
        No loss, and each cluster's mean scores as `<name>-cluster-<cluster>`.
        """
        server_round += self.rounds_before
        by_number = {self.roster.number_of(proxy): result for proxy, result in results}
        found, reasons = self._scoring.returned(by_number, self.assignment)
        explain(server_round, reasons, failures)
        if self._record is not None:
            self._record = replace(self._record, client_scores=found)
        return None, {
            f"{name}-cluster-{cluster}": value
            for cluster, of_cluster in found.items()
            for name, value in ClientScores.mean(of_cluster).items()
        }

    def _finished(self, server_round: int) -> RoundRecord | None:
        """The record of this round, unless it was not finished."""
        record = self._record
        due = server_round + self.rounds_before
        return record if record is not None and record.round == due else None
