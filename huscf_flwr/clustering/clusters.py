"""Which clients see the same kind of data: clusters by activation.

Pure functions on arrays. Source: the paper's clustered federated learning; an *activation* is a
client's mean output of the discriminator's middle block on real data, of shape (C, H, W), or (C,)
where that block has no positions.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

MAX_CLUSTERS = 8
CONVINCING = 0.25
"""Silhouette from which a split is believed. Equal shares of one domain gave 0.14 at most and two
domains 0.49; but one domain in shares as unequal as Dirichlet 0.3 reached 0.31, and is split."""

Array = np.ndarray


def cluster(activations: Array, k: int | None, seed: int) -> Array:
    """Cluster index of each client, by K-means on flattened activations.

    Parameters
    ----------
    activations: shape (clients, ...), finite.
    k: number of clusters; None chooses 2 to 8 by silhouette, or 1 where no split is convincing.
    seed: of K-means' starting points.

    Returns
    -------
    int array (clients,), numbered in the order of first appearance.

    Raises
    ------
    ValueError: k exceeds the number of clients.
    """
    features = activations.reshape(len(activations), -1)
    if k is not None:
        if k > len(features):
            raise ValueError(f"{k} clusters of {len(features)} clients")
        return _ordered(_k_means(features, k, seed))
    best, best_score = np.zeros(len(features), dtype=int), CONVINCING
    distinct = len(np.unique(features, axis=0))
    for candidate in range(2, min(MAX_CLUSTERS, distinct, len(features) - 1) + 1):
        labels = _k_means(features, candidate, seed)
        score = silhouette_score(features, labels)
        if score > best_score:
            best, best_score = labels, score
    return _ordered(best)


def keep_labels(new: Mapping[int, int], old: Mapping[int, int]) -> dict[int, int]:
    """Renumber clusters so that each keeps the number that most of its clients had before.

    Parameters
    ----------
    new, old: cluster of each client in this round and before; `old` may lack some, or have more,
        whose numbers are not given to others.
    """
    common: dict[tuple[int, int], int] = {}
    for client, cluster_ in new.items():
        if client in old:
            common[cluster_, old[client]] = common.get((cluster_, old[client]), 0) + 1
    names: dict[int, int] = {}
    for (cluster_, name), _ in sorted(common.items(), key=lambda item: (-item[1], item[0])):
        if cluster_ not in names and name not in names.values():
            names[cluster_] = name
    taken = {*names.values(), *(name for client, name in old.items() if client not in new)}
    free = (n for n in itertools.count() if n not in taken)
    for cluster_ in sorted(set(new.values()) - names.keys()):
        names[cluster_] = next(free)
    return {client: names[cluster_] for client, cluster_ in new.items()}


def grouped(assignment: Mapping[int, int]) -> dict[int, list[int]]:
    """Members of each cluster, both in ascending order."""
    groups: dict[int, list[int]] = {}
    for client in sorted(assignment):
        groups.setdefault(assignment[client], []).append(client)
    return dict(sorted(groups.items()))


def _k_means(features: Array, k: int, seed: int) -> Array:
    labels: Array = KMeans(n_clusters=k, n_init=10, random_state=seed % 2**32).fit_predict(
        features
    )
    return labels


def _ordered(labels: Sequence[int] | Array) -> Array:
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(int(label), len(seen)) for label in labels])
