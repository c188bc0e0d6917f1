"""Who scores a round's generators, and how: the server in simulation, else clients."""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from flwr.common import EvaluateIns, EvaluateRes, ndarrays_to_parameters
from flwr.server.client_proxy import ClientProxy
from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.scorer import Scorer
from huscf_flwr.evaluation.scores import Scores
from huscf_flwr.nets import GEN, State, to_arrays
from huscf_flwr.nets.generator import Generator
from huscf_flwr.report.records import ClientInfo, ClientScores, CutScores, RoundRecord
from strategies.answers import checked_scores
from strategies.roster import Present

log = logging.getLogger("huscf_flwr.strategy")

GeneratorOf = Callable[[ClientInfo, int], State]
"""The generator that a client of a cluster really has, all its blocks."""


class Scoring:
    """Scores generators against true domains, and has them scored where data is a node's own."""

    def __init__(self, config: RunConfig, base_dir: str, threads: int) -> None:
        """See `Scorer`, also for what it raises."""
        self._net_spec = config.net_spec
        self._told = config.found
        self._noisy = config.local_noise is not None
        self._along_first = config.recipe.along_first
        self._scorer = Scorer(config, base_dir, threads)
        self._asked: list[int] = []
        self._lacking: set[int] = set()

    def by_server(
        self, record: RoundRecord, generator_of: GeneratorOf, *, full: bool
    ) -> dict[tuple[str, int], Scores]:
        """Scores of each cluster's generator against the true domains of its clients.

        Cheap scores, or all of them; empty where no domain is known. Where the recipe says so,
        the generator is the one that the first of these clients has, see `generator_of`.
        """
        places = [place for place in record.by_domain_and_cluster() if place[0]]
        states = [self._scored(record, *place, generator_of) for place in places]
        work = [(domain, state) for (domain, _), state in zip(places, states, strict=True)]
        return dict(zip(places, self._scores(work, full=full), strict=True))

    def nearest(
        self, record: RoundRecord, generator_of: GeneratorOf
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Images of each true domain's main generator, and real ones, see `Evaluator.nearest`.

        None where clients add noise: nobody is to see their images without.
        """
        if self._noisy:
            return {}
        return {
            domain: self._scorer.nearest(
                domain,
                Generator(self._net_spec, self._scored(record, domain, cluster, generator_of)),
            )
            for domain, cluster in record.main_clusters().items()
        }

    def _scores(self, work: Sequence[tuple[str, State]], *, full: bool) -> list[Scores]:
        generators = [(domain, Generator(self._net_spec, state)) for domain, state in work]
        return self._scorer.scores(generators, full=full)

    def _scored(
        self, record: RoundRecord, domain: str, cluster: int, generator_of: GeneratorOf
    ) -> State:
        """The generator that stands for a domain's clients in a cluster."""
        if self._along_first:
            first = record.by_domain_and_cluster()[domain, cluster][0]
            return generator_of(first.info, cluster)
        return _generator(record.models[cluster])

    def by_cut(
        self, record: RoundRecord, generator_of: GeneratorOf
    ) -> dict[tuple[str, int], dict[str, CutScores]]:
        """All scores of the generators that clients really have, by where these are cut.

        Parameters
        ----------
        record: with the scores of `by_server`, which are not computed again where a client's
            generator is the same.
        generator_of: the generator that a client of a cluster has: its own blocks, and those that
            the server holds for it.

        Returns
        -------
        By domain and cluster, and by blocks at the generator's head and tail, as in `1-2`.
        """
        groups: dict[tuple[str, int, str], list[ClientInfo]] = {}
        for (domain, cluster), members in record.by_domain_and_cluster().items():
            for member in members:
                if domain and member.info.cut is not None:
                    group = domain, cluster, member.info.cut.gen_ends
                    groups.setdefault(group, []).append(member.info)
        others: dict[tuple[str, int, str], State] = {}
        for (domain, cluster, ends), infos in groups.items():
            own = generator_of(infos[0], cluster)
            scored = self._scored(record, domain, cluster, generator_of)
            if not all(torch.equal(value, scored[name]) for name, value in own.items()):
                others[domain, cluster, ends] = own
        work = [(domain, own) for (domain, _, _), own in others.items()]
        scores = dict(zip(others, self._scores(work, full=True), strict=True))
        found: dict[tuple[str, int], dict[str, CutScores]] = {}
        for domain, cluster, ends in sorted(groups):
            group, place = (domain, cluster, ends), (domain, cluster)
            of = CutScores(len(groups[group]), scores.get(group, record.scores[place]))
            found.setdefault(place, {})[ends] = of
        return found

    def instructions(
        self,
        clients: Present,
        assignment: Mapping[int, int],
        models: Mapping[int, State],
        *,
        full: bool,
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Ask clients with data of their own to score their cluster's generator on it.

        Nobody where they add noise to it: scores would be of images without.

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
            if not info.domain and assignment.get(info.number) in models and not self._noisy
        }
        self._asked = [info.number for info in own.values()]
        return [
            (
                proxy,
                EvaluateIns(
                    ndarrays_to_parameters(to_arrays(_generator(models[assignment[info.number]]))),
                    {"client": info.number, "utility": full, **self._told},
                ),
            )
            for proxy, info in own.items()
        ]

    def returned(
        self, results: Mapping[int, EvaluateRes], assignment: Mapping[int, int]
    ) -> tuple[dict[int, list[ClientScores]], dict[int, str]]:
        """The good scores by cluster, in order; and why others that were asked have none.

        `results` and `assignment` are by client number. Who holds out no image of a class is named
        once.
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
        found: dict[int, list[ClientScores]] = {}
        for score in scores:
            found.setdefault(assignment[score.client], []).append(score)
        return dict(sorted(found.items())), reasons


def _generator(model: State) -> State:
    return {name: value for name, value in model.items() if name.startswith(f"{GEN}.")}
