"""Scores as summary.json has them."""

from collections.abc import Sequence
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.scores import CHEAP_SCORES, REAL
from huscf_flwr.report.files import BY_CUT, DETAILS, OTHERS
from huscf_flwr.report.records import ClientScores, RoundRecord


def by_domain(record: RoundRecord) -> dict[str, dict[str, Any]]:
    """The scores of summary.json: of each domain's main cluster, and in it those of others."""
    members = record.by_domain_and_cluster()
    domains: dict[str, dict[str, Any]] = {}
    for domain, main in record.main_clusters().items():
        found = {
            c: {"clients": len(members[d, c]), **scores.as_dict(), **_by_cut(record, d, c)}
            for (d, c), scores in record.scores.items()
            if d == domain
        }
        domains[domain] = {"cluster": main, **found.pop(main)}
        if found:
            domains[domain][OTHERS] = {str(cluster): scores for cluster, scores in found.items()}
    return domains


def _by_cut(record: RoundRecord, domain: str, cluster: int) -> dict[str, Any]:
    found = record.by_cut.get((domain, cluster), {})
    by_ends = {
        ends: {
            "clients": of.clients,
            **of.scores.values(),
            **({"utility": dict(of.scores.utility.metrics)} if of.scores.utility else {}),
        }
        for ends, of in found.items()
    }
    return {BY_CUT: by_ends} if by_ends else {}


def of_clients(scores: Sequence[ClientScores], config: RunConfig) -> dict[str, Any]:
    """A cluster's scores of summary.json, of a round that ends the run: as those of a domain."""
    mean = ClientScores.mean(scores)
    real = {name: {"real": mean.pop(name + REAL)} for name in CHEAP_SCORES}
    how = {
        "n_generated": config.utility_images,
        "n_real": sum(score.images for score in scores),
        "extractor": "classifiers of the clients' own training images",
        "seed": config.seed,
    }
    found: dict[str, Any] = {
        "clients": len(scores),
        **{name: mean.pop(name) for name in CHEAP_SCORES},
    }
    if mean:  # what all tell of utility
        found["utility"] = mean
    of = [name for name in found if name != "clients"]
    return {**found, DETAILS: {name: {**real.get(name, {}), **how} for name in of}}
