"""What a strategy reports about a round, for logs, files and scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from huscf_flwr.cuts import Cut
from huscf_flwr.nets import State


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
    """One client's part in one round."""

    info: ClientInfo
    cluster: int
    kld: float
    weight: float
    generator_loss: float
    discriminator_loss: float
    peak_memory_mb: float


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
    """

    round: int
    seconds: float
    iterations: int
    clients: list[ClientRound]
    failures: Mapping[int, str]
    models: Mapping[int, State]

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
