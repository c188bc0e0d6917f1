"""How many clusters there are: whose images have each other's for neighbours.

Clients of one domain have images among which any one's nearest neighbours are anybody's: in
proportion to how many images everybody has. Clients of two domains find none, or few, across.
Labels that clients lack make neighbours rarer, too, but not as rare. That is the test: how often
images of two groups are neighbours, in relation to what chance would give in one domain; chance
among all clients, and among those of the two groups alone, for in many domains few neighbours
across are many by the first.

A silhouette of mean activations, in its place, falls with every label that clients lack, in two
domains to values that unequal shares of one domain exceed. Pure functions on arrays.
"""

from collections.abc import Sequence

import numpy as np

CONNECTED = 0.5
"""Two groups are of one domain if their images are neighbours at least so often, where 1 is what
chance would give. See docs/fidelity.md for what it rests on."""
NEIGHBOURS = 3
"""The nearest images that are looked at, for each image."""
MOST_IMAGES = 32_768
"""Of all clients together; of more, everybody's first ones are looked at. Of a thousand clients
that is 32 each, and takes 20 s; of fewer images, some are nobody's neighbours by chance."""

_NONE = 1e-12

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
    found, sizes = neighbour_counts(activations)
    expected = np.outer(sizes, sizes) / (sizes.sum() - sizes)[:, None] if len(sizes) > 1 else found
    squares = sizes**2
    labels, groups = np.arange(len(sizes)), list(range(len(sizes)))
    while len(groups) > 1:
        here = np.ix_(groups, groups)
        counts, images = found[here], sizes[groups]
        among_all = counts / expected[here]
        # In the two groups alone: an image's client has no neighbours in itself.
        of_others = (images - squares[groups] / images)[:, None]
        share = counts / np.maximum(counts + counts.diagonal()[:, None], _NONE)
        among_two = share * (images + of_others) / images
        # Both have to find neighbours in the other: a lone client finds them somewhere, always.
        ratio, among_two = (np.sqrt(r * r.T) for r in (among_all, among_two))
        ratio[among_two < CONNECTED] = 0.0
        np.fill_diagonal(ratio, 0.0)
        first, second = sorted(np.unravel_index(ratio.argmax(), ratio.shape))
        if ratio[first, second] < CONNECTED:
            break
        kept, joined = groups[first], groups.pop(second)
        for table in (found, expected):
            table[kept] += table[joined]
            table[:, kept] += table[:, joined]
        sizes[kept] += sizes[joined]
        squares[kept] += squares[joined]
        labels[labels == joined] = kept
    return np.unique(labels, return_inverse=True)[1].astype(int)


def neighbour_counts(activations: Sequence[Array]) -> tuple[Array, Array]:
    """How often images of each client have neighbours among those of each other.

    A client's own images do not count as neighbours; an image counts as one, in equal parts to its
    `NEIGHBOURS` nearest.

    Returns
    -------
    (clients, clients), whose rows sum to the client's images; and these, float64 (clients,).
    """
    most = max(2, MOST_IMAGES // len(activations))
    sets = [
        np.unique(a.reshape(len(a), -1)[:most].astype(np.float32), axis=0) for a in activations
    ]
    sizes = np.array([len(images) for images in sets], dtype=float)
    owner = np.repeat(np.arange(len(sets)), sizes.astype(int))
    everyone = np.concatenate(sets)
    squares = (everyone**2).sum(axis=1)
    found = np.zeros((len(sets), len(sets)))
    if len(sets) > 1:
        for client, images in enumerate(sets):
            distances = squares - 2 * images @ everyone.T  # but for what is the same in a row
            distances[:, owner == client] = np.inf
            count = min(NEIGHBOURS, len(everyone) - len(images))
            nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
            found[client] = np.bincount(owner[nearest].ravel(), minlength=len(sets)) / count
    return found, sizes
