"""Who scores a round's generators, and how: the server in simulation, else clients."""

import logging
from collections.abc import Mapping

from flwr.common import EvaluateIns, EvaluateRes, ndarrays_to_parameters
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.scorer import Scorer
from huscf_flwr.evaluation.scores import Scores
from huscf_flwr.nets import GEN, State, to_arrays
from huscf_flwr.nets.generator import Generator
from huscf_flwr.report.records import ClientScores, RoundRecord
from strategies.answers import checked_scores
from strategies.roster import Present

log = logging.getLogger("huscf_flwr.strategy")


class Scoring:
    """Scores generators against true domains, and has them scored where data is a node's own."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """See `Scorer`, also for what it raises."""
        self._net_spec = config.net_spec
        self._scorer = Scorer(config, base_dir)
        self._asked: list[int] = []
        self._lacking: set[int] = set()

    def by_server(self, record: RoundRecord, *, full: bool) -> dict[tuple[str, int], Scores]:
        """Scores of each cluster's generator against the true domains of its clients.

        Cheap scores, or all of them; empty where no domain is known.
        """
        score = self._scorer.full if full else self._scorer.cheap
        return {
            (domain, cluster): score(Generator(self._net_spec, record.models[cluster]), domain)
            for domain, cluster in record.by_domain_and_cluster()
            if domain
        }

    def instructions(
        self,
        clients: Present,
        assignment: Mapping[int, int],
        models: Mapping[int, State],
        *,
        full: bool,
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Ask clients with data of their own to score their cluster's generator on it.

        Parameters
        ----------
        clients: those that are connected.
        assignment: cluster of each client; one without, as it was in no round, is not asked.
        models: the whole net of each cluster.
        full: whether utility, which takes a classifier trained on generated images, is due, too.
        """
        own = {
            proxy: info
            for proxy, info in clients.items()
            if not info.domain and assignment.get(info.number) in models
        }
        self._asked = [info.number for info in own.values()]
        return [
            (
                proxy,
                EvaluateIns(
                    ndarrays_to_parameters(to_arrays(_generator(models[assignment[info.number]]))),
                    {"client": info.number, "utility": full},
                ),
            )
            for proxy, info in own.items()
        ]

    def returned(
        self, results: Mapping[int, EvaluateRes]
    ) -> tuple[list[ClientScores], dict[int, str]]:
        """The good scores in the clients' order; and why others that were asked have none.

        `results` is by client number. Who holds out no image of a class is named once.
        """
        scores: list[ClientScores] = []
        reasons: dict[int, str] = {}
        for number in sorted({*self._asked, *results}):
            if number not in results:
                reasons[number] = f"client {number} returned no scores"
                continue
            try:
                scores.append(checked_scores(number, results[number]))
            except ValueError as error:
                reasons[number] = f"client {number} returned bad scores: {error}"
        for score in scores:
            if score.missing_classes and score.client not in self._lacking:
                log.warning(
                    "client %d trains on images of %d class(es) of which it holds none out: "
                    "its scores say nothing of them",
                    score.client,
                    score.missing_classes,
                )
                self._lacking.add(score.client)
        return scores, reasons


def _generator(model: State) -> State:
    return {name: value for name, value in model.items() if name.startswith(f"{GEN}.")}
