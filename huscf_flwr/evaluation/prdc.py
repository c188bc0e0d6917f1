"""Precision, recall, density and coverage of generated images, by nearest neighbours.

An image's ball reaches to its k-th nearest neighbour among those of its own kind. Distances
between two sets say how far apart they are; these say why: what is generated looks like nothing
real (precision, density), or something real is never generated (recall, coverage).

Sources: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative
Models" (2019), equations 1 and 2; Naeem et al., "Reliable Fidelity and Diversity Metrics for
Generative Models" (2020), equations 4 and 5.
"""

from collections.abc import Iterator

import numpy as np

_NEIGHBOURS = 5
PRDC = ("prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage")
"""Names of the scores, in the order of `prdc`."""


def prdc(real: np.ndarray, generated: np.ndarray) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage.

    All depend on how many images there are; so as many of either set are compared, the first ones.

    Parameters
    ----------
    real, generated: features (n, d) and (m, d) in random order, with n and m at least 2.

    Returns
    -------
    The share of generated images in any real one's ball; the share of real images in any generated
    one's ball; in how many real balls a generated image is, by the number of neighbours (it may be
    above 1); the share of real images that have a generated one in their ball.
    """
    size = min(len(real), len(generated))
    real, generated = real[:size], generated[:size]
    reach, reach_generated = _reach(real), _reach(generated)
    inside = np.zeros(size)  # of how many real balls each generated image is
    reached, covered = [], []
    for distances, rows in _distances(real, generated):
        in_balls = distances <= reach[rows, None]
        inside += in_balls.sum(axis=0)
        covered.append(in_balls.any(axis=1))
        reached.append((distances <= reach_generated).any(axis=1))
    return (
        float((inside > 0).mean()),
        float(np.concatenate(reached).mean()),
        float(inside.mean() / _neighbours(size)),
        float(np.concatenate(covered).mean()),
    )


def _neighbours(size: int) -> int:
    return min(_NEIGHBOURS, size - 1)


def _reach(features: np.ndarray) -> np.ndarray:
    """Distance of each (n, d) to its k-th nearest neighbour among the others, (n,)."""
    place = _neighbours(len(features))  # in order of distance, where it is the first itself
    parts = [np.partition(d, place, axis=1)[:, place] for d, _ in _distances(features, features)]
    return np.concatenate(parts)


def _distances(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, slice]]:
    """Distances of some of (n, d) to all of (m, d), and which they are: memory stays small."""
    # Here, since it is heavy, and clients load this module for every message.
    from sklearn.metrics import pairwise_distances_chunked

    begin = 0
    for part in pairwise_distances_chunked(one, other, working_memory=256):
        yield part, slice(begin, begin + len(part))
        begin += len(part)
