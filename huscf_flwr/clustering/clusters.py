"""Which clients see the same kind of data: a given number of clusters by activation.

Pure functions on arrays. Source: the paper's clustered federated learning; an *activation* is a
client's mean output of the discriminator's middle block on real data, of shape (C, H, W), or (C,)
where that block has no positions. `neighbours` finds the number, too.
"""

import itertools
from collections.abc import Mapping

import numpy as np
from sklearn.cluster import KMeans

Array = np.ndarray


def cluster(activations: Array, k: int, seed: int) -> Array:
    """Cluster index of each client, by K-means on flattened activations.

    Parameters
    ----------
    activations: shape (clients, ...), finite.
    k: number of clusters.
    seed: of K-means' starting points.

    Returns
    -------
    int array (clients,), numbered in the order of first appearance.

    Raises
    ------
    ValueError: k exceeds the number of clients.
    """
    features = activations.reshape(len(activations), -1)
    if k > len(features):
        raise ValueError(f"{k} clusters of {len(features)} clients")
    means = KMeans(n_clusters=k, n_init=10, random_state=seed % 2**32)
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(int(c), len(seen)) for c in means.fit_predict(features)])


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


def placed(found: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """The clusters of new clients, where others keep theirs.

    Parameters
    ----------
    found: groups of all clients, new ones and others.
    before: clusters of the others.

    Returns
    -------
    For each client that is not in `before`, the cluster of most of the others in its group, or a
    number of its own where there are none.
    """
    new: dict[int, int] = {}
    for members in grouped(found).values():
        known = [before[client] for client in members if client in before]
        taken = {*before.values(), *new.values()}
        free = next(number for number in itertools.count() if number not in taken)
        name = max(sorted(set(known)), key=known.count) if known else free
        new |= {client: name for client in members if client not in before}
    return new


def grouped(assignment: Mapping[int, int]) -> dict[int, list[int]]:
    """Members of each cluster, both in ascending order."""
    groups: dict[int, list[int]] = {}
    for client in sorted(assignment):
        groups.setdefault(assignment[client], []).append(client)
    return dict(sorted(groups.items()))
