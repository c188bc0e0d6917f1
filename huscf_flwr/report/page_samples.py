"""The generated images on a run's page: what each cluster's looked like, round after round."""

from collections.abc import Sequence
from typing import Any

from huscf_flwr.report import figures
from huscf_flwr.report.files import RunFiles

_ROUNDS = 40  # that can be chosen from
_GRIDS = 80  # in all clusters together: each takes tens of kilobytes


def samples(run: RunFiles) -> dict[str, Any] | None:
    """Grids of each cluster, of `rounds` that are evenly spaced, beside the real images of its
    domains; None where there are none.
    """
    grids = run.grids()
    found = sorted({number for of_cluster in grids.values() for number in of_cluster})
    if not found:
        return None
    rounds = _evenly(found, min(_ROUNDS, max(1, _GRIDS // len(grids))))
    names: dict[int, list[str]] = {}
    for name, rows in run.curves().items():
        if rows[-1].domain:
            names.setdefault(rows[-1].cluster, []).append(name)
    clusters = []
    for cluster, of_cluster in grids.items():
        frames = {
            number: figures.image(
                of_cluster[number],
                f"Generated images of cluster {cluster} after round {number}",
                f"generated, round {number}",
            )
            for number in rounds
            if number in of_cluster
        }
        domains = names.get(cluster, [])
        real = [
            figures.image(path, f"Real {domain}, held out", f"real {domain}, held out")
            for domain in domains
            if (path := run.real_grid(domain)) is not None
        ]
        more = []
        if (path := run.between(cluster)) is not None:
            what = f"Images of cluster {cluster}, from each class to the next"
            more.append(figures.image(path, what, "from each class to the next, row by row"))
        for domain in domains:
            if (path := run.nearest(domain)) is not None:
                what = f"Generated images of {domain}, and the training images nearest to them"
                below = f"generated, and below each the most similar training image of {domain}"
                more.append(figures.image(path, what, below))
        title = f"Cluster {cluster}" + (f": {', '.join(domains)}" if domains else "")
        if frames:
            clusters.append({"title": title, "frames": frames, "real": real, "more": more})
    return {"rounds": rounds, "clusters": clusters}


def _evenly(rounds: Sequence[int], count: int) -> list[int]:
    """So many of them, the last and, of two or more, the first among them."""
    step = (len(rounds) - 1) / max(1, count - 1)
    last = len(rounds) - 1
    return sorted({rounds[last - round(place * step)] for place in range(count)})
