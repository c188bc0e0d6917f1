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

from collections.abc import Iterator, Sequence

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
_ROWS = 128  # of images at a time: fewer take longer each

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
    squares, labels = sizes**2, np.arange(len(sizes))
    ratio = np.zeros((len(sizes), len(sizes)))

    def compare(group: int) -> None:
        """Work out anew how often a group and each other are neighbours, by the rarer way."""
        ratio[group] = ratio[:, group] = 0.0
        others = np.flatnonzero(labels == np.arange(len(labels)))
        others = others[others != group]
        both = []
        for one, other in ((group, others), (others, group)):
            counts, own = found[one, other], found.diagonal()[one]
            among_all = counts / expected[one, other]
            # In the two groups alone: an image's client has no neighbours in itself.
            of_others = sizes[one] - squares[one] / sizes[one]
            share = counts / np.maximum(counts + own, _NONE)
            both.append((among_all, share * (sizes[other] + of_others) / sizes[other]))
        # Both have to find neighbours in the other: a lone client finds them somewhere, always.
        (all_here, two_here), (all_there, two_there) = both
        among_all, among_two = np.sqrt(all_here * all_there), np.sqrt(two_here * two_there)
        ratio[group, others] = np.where(among_two < CONNECTED, 0.0, among_all)
        ratio[others, group] = ratio[group, others]

    for group in range(len(sizes)):
        compare(group)
    best = ratio.argmax(axis=1)
    while True:
        most = ratio[np.arange(len(best)), best]
        first = int(most.argmax())
        if most[first] < CONNECTED:
            break
        kept, joined = sorted((first, int(best[first])))
        for table in (found, expected):
            table[kept] += table[joined]
            table[:, kept] += table[:, joined]
        sizes[kept] += sizes[joined]
        squares[kept] += squares[joined]
        labels[labels == joined] = kept
        ratio[joined] = ratio[:, joined] = 0.0
        compare(kept)
        # Of the others, the best is another one only if it was one of these, or is the new one.
        behind = np.isin(best, (kept, joined)) | (ratio[:, kept] >= most)
        behind[kept] = True
        best[behind] = ratio[behind].argmax(axis=1)
    return np.unique(labels, return_inverse=True)[1].astype(int)


def neighbour_counts(activations: Sequence[Array]) -> tuple[Array, Array]:
    """How often images of each client have neighbours among those of each other.

    A client's own images do not count as neighbours; an image counts as one, in equal parts to its
    `NEIGHBOURS` nearest.

    Returns
    -------
    (clients, clients), whose rows sum to the client's images; and these, float64 (clients,).
    """
    most = looked_at(len(activations))
    sets = [
        np.unique(a.reshape(len(a), -1)[:most].astype(np.float32), axis=0) for a in activations
    ]
    sizes = np.array([len(images) for images in sets], dtype=float)
    owner = np.repeat(np.arange(len(sets)), sizes.astype(int))
    everyone = np.concatenate(sets)
    squares = (everyone**2).sum(axis=1)
    found = np.zeros((len(sets), len(sets)))
    ends = np.cumsum(sizes.astype(int))
    for begin, end in _together(ends) if len(sets) > 1 else ():
        first, last = ends[begin] - len(sets[begin]), ends[end - 1]
        # But for what is the same in a row.
        distances = squares - 2 * everyone[first:last] @ everyone.T
        for client in range(begin, end):
            own = slice(ends[client] - len(sets[client]), ends[client])
            rows = distances[own.start - first : own.stop - first]
            rows[:, own] = np.inf
            count = min(NEIGHBOURS, len(everyone) - len(rows))
            nearest = np.argpartition(rows, count - 1, axis=1)[:, :count]
            found[client] = np.bincount(owner[nearest].ravel(), minlength=len(sets)) / count
    return found, sizes


def looked_at(clients: int) -> int:
    """How many images of each of so many clients are looked at, at most."""
    return max(2, MOST_IMAGES // clients)


def _together(ends: Array) -> Iterator[tuple[int, int]]:
    """Clients, from one to before another, whose images are worth one multiplication.

    `ends` are the places where the images of each client end.
    """
    begin, done = 0, 0
    for client, end in enumerate(ends):
        if end - done >= _ROWS or client == len(ends) - 1:
            yield begin, client + 1
            begin, done = client + 1, end
