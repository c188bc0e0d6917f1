"""What a strategy reports about a round, for logs, files and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from huscf_flwr.evaluation.scores import Scores
from huscf_flwr.nets import State
from huscf_flwr.privacy.own_audit import Seen
from huscf_flwr.split.cuts import Cut


@dataclass(frozen=True)
class ClientInfo:
    """A client as the strategy knows it.

    Attributes
    ----------
    number: its place in every order: the partition id, where nodes have one.
    size: training images.
    domain: its true domain in simulation, empty where the data is the node's own.
    device: what the client said of its device: its speeds, or the name of its profile, by the
        keys of a devices file; empty if nothing.
    cut: where its nets are cut; None if it holds them whole.
    part: its partition id and the number of partitions, where its data was dealt.
    """

    number: int
    size: int
    domain: str
    device: Mapping[str, object] = field(default_factory=dict)
    cut: Cut | None = None
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class ClientRound:
    """One client's part in one round.

    Attributes
    ----------
    startup_s, training_s: seconds that its process took to start, where it did, and that it
        trained with a server elsewhere.
    seen: what it found of what it sends, if it looked.
    """

    info: ClientInfo
    cluster: int
    kld: float
    weight: float
    generator_loss: float
    discriminator_loss: float
    peak_memory_mb: float
    startup_s: float = 0.0
    training_s: float = 0.0
    seen: Seen | None = None


@dataclass(frozen=True)
class ClientScores:
    """What a client found of its cluster's generator, on its own held-out images.

    Attributes
    ----------
    client: its number.
    images: held-out images.
    missing_classes: of which none of them is.
    values: scores by name.
    """

    client: int
    images: int
    missing_classes: int
    values: Mapping[str, float]

    @staticmethod
    def mean(scores: Sequence["ClientScores"]) -> dict[str, float]:
        """The mean of each score over those of these clients that have it, who may have no utility
        of a single class; weighted by held-out images."""
        names = dict.fromkeys(name for s in scores for name in s.values)
        having = {name: [s for s in scores if name in s.values] for name in names}
        return {
            name: float(np.average([s.values[name] for s in of], weights=[s.images for s in of]))
            for name, of in having.items()
        }


@dataclass(frozen=True)
class CutScores:
    """Scores of the generator that so many `clients` of a domain and a cluster really have."""

    clients: int
    scores: Scores


@dataclass(frozen=True)
class RoundCosts:
    """What a round costs a client.

    Attributes
    ----------
    sent_bytes, received_bytes: of the arrays, at its beginning and end and in every iteration.
    flops: floating-point operations of its iterations; a multiply-add is two.
    """

    sent_bytes: float
    received_bytes: float
    flops: float

    @staticmethod
    def mean(costs: Sequence["RoundCosts"]) -> "RoundCosts":
        """Of several clients."""
        return RoundCosts(*np.mean([(c.sent_bytes, c.received_bytes, c.flops) for c in costs], 0))


@dataclass(frozen=True)
class RoundRecord:
    """A finished round.

    Attributes
    ----------
    round: from 1.
    seconds: from sending the instructions to having the averages.
    iterations: planned per client.
    clients: those whose results count, by number.
    failures: why the others' do not, by number.
    models: the whole net of each cluster.
    costs: of a client, the mean over all.
    scores: of clusters' generators against true domains, by domain and cluster, in simulation.
    by_cut: of those that clients really have, by the same and by where generators are cut.
    client_scores: what clients with data of their own found of their cluster's, by cluster.
    scoring_s: seconds from having the averages to having all scores.
    """

    round: int
    seconds: float
    iterations: int
    clients: list[ClientRound]
    failures: Mapping[int, str]
    models: Mapping[int, State]
    costs: RoundCosts
    scores: Mapping[tuple[str, int], Scores] = field(default_factory=dict)
    by_cut: Mapping[tuple[str, int], Mapping[str, CutScores]] = field(default_factory=dict)
    client_scores: Mapping[int, Sequence[ClientScores]] = field(default_factory=dict)
    scoring_s: float = 0.0

    def by_domain_and_cluster(self) -> dict[tuple[str, int], list[ClientRound]]:
        """Clients grouped by true domain and cluster, sorted."""
        groups: dict[tuple[str, int], list[ClientRound]] = {}
        for client in self.clients:
            groups.setdefault((client.info.domain, client.cluster), []).append(client)
        return dict(sorted(groups.items()))

    def main_clusters(self) -> dict[str, int]:
        """The cluster in which most clients of each true domain are."""
        groups = self.by_domain_and_cluster()
        return {
            domain: max(
                (c for d, c in groups if d == domain), key=lambda c: len(groups[domain, c])
            )
            for domain in sorted({d for d, _ in groups if d})
        }

    def main_scores(self) -> dict[str, Scores]:
        """The scores of each true domain's main cluster, where it has some."""
        main = self.main_clusters()
        return {d: self.scores[d, c] for d, c in main.items() if (d, c) in self.scores}

    def main_values(self) -> dict[str, float]:
        """The same, as `<name>-<domain>`."""
        return {
            f"{name}-{domain}": value
            for domain, found in self.main_scores().items()
            for name, value in found.values().items()
        }

    def score_values(self, domain: str, cluster: int) -> dict[str, float]:
        """Scores, and what real images get, by name; empty where there are none.

        With an empty `domain`, means over the cluster's clients that have data of their own.
        """
        if (domain, cluster) in self.scores:
            found = self.scores[domain, cluster]
            return {**found.values(), **found.on_real()}
        if domain or cluster not in self.client_scores:
            return {}
        return ClientScores.mean(self.client_scores[cluster])
