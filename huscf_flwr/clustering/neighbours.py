"""How many clusters there are: whose images have each other's for neighbours.

Clients of one domain have images among which any one's nearest neighbours are anybody's: in
proportion to how many images everybody has. Clients of two domains find none, or few, across.
Labels that clients lack make neighbours rarer, too, but not as rare. That is the test: how often
images of two groups are neighbours, in relation to what chance would give in one domain.

A silhouette of mean activations, in its place, falls with every label that clients lack, in two
domains to values that unequal shares of one domain exceed. Pure functions on arrays.
"""

from collections.abc import Sequence

import numpy as np

CONNECTED = 0.35
"""Two groups are of one domain if their images are neighbours at least so often, where 1 is what
chance would give. See docs/fidelity.md for what it rests on."""
NEIGHBOURS = 3
"""The nearest images that are looked at, for each image."""
MOST_IMAGES = 8192
"""Of all clients together; of more, everybody's first ones are looked at."""

Array = np.ndarray


def find_clusters(activations: Sequence[Array]) -> Array:
    """Cluster index of each client, as many as there are, by who has neighbours where.

    Groups that are neighbours the most often are joined, until none are often enough.

    Parameters
    ----------
    activations: for each client, those of single images, (images, ...), finite; of an image that
        is there several times, one counts.

    Returns
    -------
    int array (clients,), numbered in the order of first appearance.
    """
    clients = len(activations)
    if clients == 1:
        return np.zeros(1, dtype=int)
    found, expected = neighbour_counts(activations)
    labels = np.arange(clients)
    groups = list(range(clients))
    while len(groups) > 1:
        here = np.ix_(groups, groups)
        ratio = found[here] / expected[here]
        # Both have to find neighbours in the other: a lone client finds them somewhere, always.
        mutual = np.sqrt(ratio * ratio.T)
        np.fill_diagonal(mutual, -1.0)
        first, second = sorted(np.unravel_index(mutual.argmax(), mutual.shape))
        if mutual[first, second] < CONNECTED:
            break
        kept, joined = groups[first], groups.pop(second)
        for counts in (found, expected):
            counts[kept] += counts[joined]
            counts[:, kept] += counts[:, joined]
        labels[labels == joined] = kept
    return np.unique(labels, return_inverse=True)[1].astype(int)


def neighbour_counts(activations: Sequence[Array]) -> tuple[Array, Array]:
    """How often images of each client have neighbours among those of each other, and by chance.

    A client's own images do not count as neighbours. Both are (clients, clients); an image counts
    as one, in equal parts to its `NEIGHBOURS` nearest.
    """
    most = max(2, MOST_IMAGES // len(activations))
    sets = [
        np.unique(a.reshape(len(a), -1)[:most].astype(np.float32), axis=0) for a in activations
    ]
    sizes = np.array([len(images) for images in sets])
    owner = np.repeat(np.arange(len(sets)), sizes)
    everyone = np.concatenate(sets)
    squares = (everyone**2).sum(axis=1)
    found = np.zeros((len(sets), len(sets)))
    for client, images in enumerate(sets):
        distances = squares - 2 * images @ everyone.T  # but for what is the same in a row
        distances[:, owner == client] = np.inf
        count = min(NEIGHBOURS, len(everyone) - len(images))
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
        found[client] = np.bincount(owner[nearest].ravel(), minlength=len(sets)) / count
    expected = np.outer(sizes, sizes) / (sizes.sum() - sizes)[:, None]
    return found, expected
