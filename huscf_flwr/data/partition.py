"""Which client gets which images.

Everything here is a function of the settings, so that a client finds its part on its own.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, Source, load_domain
from huscf_flwr.errors import UserError

DIRICHLET = "dirichlet"


@dataclass(frozen=True)
class LabelSkew:
    """How unequal clients are.

    Attributes
    ----------
    lacking: odds that a client lacks so many labels, by their number; they need not sum to one.
    reduced: fraction of the clients whose limit is that part only of the others', as pairs.
    """

    lacking: dict[int, float]
    reduced: tuple[tuple[float, float], ...]


# Scenarios 2 and 4 of the paper, and its scenario 5.
SKEWS = {
    "non-iid": LabelSkew({0: 0.25, 2: 0.3, 3: 0.1, 4: 0.1}, ((0.3, 2 / 3),)),
    "highly-non-iid": LabelSkew({2: 0.4, 3: 0.6}, ((0.2, 1 / 6), (0.3, 1 / 3))),
}
PARTITIONS = ("iid", *SKEWS, DIRICHLET)
_FEWEST = 10
_DRAWS = 10_000


@dataclass(frozen=True)
class DataSettings:
    """What a run deals to its clients, and how.

    Attributes
    ----------
    sources: the domains; client i has domain i modulo their number.
    image_format: what the images are brought to.
    partition: one of `PARTITIONS`.
    alpha: concentration of the Dirichlet distribution.
    seed: of the partition of every domain.
    max_images: images dealt to a client at most, and what `LabelSkew.reduced` is a part of; 0: no
        limit, and parts of an equal share of the domain.
    """

    sources: tuple[Source, ...]
    image_format: ImageFormat
    partition: str
    alpha: float
    seed: int
    max_images: int


def client_data(
    settings: DataSettings, *, client: int, clients: int
) -> tuple[Domain, LabelledImages]:
    """The domain of a client, and its part of that domain's training images.

    Raises
    ------
    UserError: a domain that cannot be loaded or dealt, or fewer than 2 images for this client.
    """
    place, number = divmod(client, len(settings.sources))
    domain = load_domain(settings.sources[number], settings.image_format)
    mine = _deal(settings, number, clients)[place]
    data = domain.train.select(torch.from_numpy(mine))
    check_size(data, f"client {client}")
    return domain, data


def label_counts(settings: DataSettings, clients: int) -> np.ndarray:
    """How many images of each class every client gets, int64 (clients, num_classes).

    Raises
    ------
    UserError: a domain that cannot be loaded or dealt.
    """
    classes = settings.image_format.num_classes
    counts = np.zeros((clients, classes), dtype=np.int64)
    for number, source in enumerate(settings.sources[:clients]):
        labels = load_domain(source, settings.image_format).train.labels.numpy()
        for place, part in enumerate(_deal(settings, number, clients)):
            client = place * len(settings.sources) + number
            counts[client] = np.bincount(labels[part], minlength=classes)
    return counts


def parts(
    labels: np.ndarray,
    clients: int,
    partition: str,
    alpha: float,
    rng: np.random.Generator,
    max_images: int = 0,
) -> list[np.ndarray]:
    """Positions of each client's images; none is in two parts.

    - iid: equal random parts of all images.
    - non-iid, highly-non-iid: labels are missing and sizes differ, see `skewed_parts`.
    - dirichlet: every class is divided among the clients in shares that are drawn from a Dirichlet
      distribution (Hsu et al., arXiv 1909.06335), until each client has 10 images, or half an
      equal share where that is less.

    With `max_images`, what a part has beyond it is left out at random.

    Parameters
    ----------
    labels: integers (n,).
    clients: number of parts.
    partition: one of `PARTITIONS`.
    alpha: concentration of the Dirichlet distribution, above 0: the lower, the more unequal.
    rng: source of everything random.
    max_images: images in a part at most; 0: no limit.

    Raises
    ------
    UserError: no draw of a Dirichlet distribution gave each client so many images.
    """
    if partition in SKEWS:
        return skewed_parts(labels, clients, SKEWS[partition], rng, max_images)
    most = max_images or len(labels)
    if partition == "iid":
        return [part[:most] for part in np.array_split(rng.permutation(len(labels)), clients)]
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    counts = _dirichlet_counts(sizes, clients, alpha, rng)
    dealt = [
        np.split(rng.permutation(np.flatnonzero(inverse == c)), np.cumsum(counts[:, c]))[:-1]
        for c in range(len(sizes))
    ]
    found = [np.concatenate(own) for own in zip(*dealt, strict=True)]
    return [rng.permutation(part)[:most] if len(part) > most else part for part in found]


def skewed_parts(
    labels: np.ndarray,
    clients: int,
    skew: LabelSkew,
    rng: np.random.Generator,
    max_images: int = 0,
) -> list[np.ndarray]:
    """Positions of each client's images if labels are missing and sizes differ.

    As with the paper's authors, the images are split at random into equal shares, one a client;
    out of its share a client loses those of the labels that it lacks; and what is left is cut at
    random to its limit. So not all images are dealt, and a client may have fewer than its limit.

    How many labels a client lacks is drawn by the odds, at most all but one, and so are the
    labels. A class that then nobody has takes the place of the one that most have, with one of
    these; it stays out only if there are fewer places than classes, or if it is so rare that it is
    lost with what is not dealt.

    The limit is `max_images`, or without it an equal share, rounded down. So many clients as
    `skew.reduced` says, to the nearest whole number, have that part of it, rounded down; which, is
    drawn. A limit far above an equal share makes nobody's part smaller.

    Parameters
    ----------
    labels: integers (n,).
    clients: how many.
    skew: what to draw.
    rng: source of everything random.
    max_images: images that a client gets at most; 0: those of an equal share.

    Returns
    -------
    int64 arrays, one a client, in random order; empty ones, where a client has nothing left.
    """
    shares = np.array_split(rng.permutation(len(labels)), clients)
    classes, inverse = np.unique(labels, return_inverse=True)
    has = _labels_held(len(classes), clients, skew, rng)
    limit = max_images or len(labels) // clients
    limits = np.full(clients, limit)
    order, first = rng.permutation(clients), 0
    for fraction, part in skew.reduced:
        last = first + round(fraction * clients)
        limits[order[first:last]] = int(part * limit)
        first = last
    return [
        share[held[inverse[share]]][:most]
        for share, held, most in zip(shares, has, limits, strict=True)
    ]


def _labels_held(
    classes: int, clients: int, skew: LabelSkew, rng: np.random.Generator
) -> np.ndarray:
    """bool (clients, classes)"""
    odds = np.array(list(skew.lacking.values()))
    lacking = rng.choice(list(skew.lacking), size=clients, p=odds / odds.sum())
    has = np.ones((clients, classes), dtype=bool)
    for client, number in enumerate(lacking):
        has[client, rng.permutation(classes)[: min(number, classes - 1)]] = False
    for nobodys in np.flatnonzero(~has.any(axis=0)):
        holders = has.sum(axis=0)
        common = holders.argmax()
        if holders[common] < 2:
            break
        client = rng.choice(np.flatnonzero(has[:, common]))
        has[client, [common, nobodys]] = False, True
    return has


def _dirichlet_counts(
    sizes: np.ndarray, clients: int, alpha: float, rng: np.random.Generator
) -> np.ndarray:
    fewest = min(_FEWEST, sizes.sum() // (2 * clients))
    for _ in range(_DRAWS):
        counts = _counts(rng.dirichlet(np.full(clients, alpha), size=len(sizes)).T, sizes)
        if counts.sum(axis=1).min() >= fewest:
            return counts
    raise UserError(
        f"partition={DIRICHLET}: {_DRAWS} draws left some of {clients} clients with fewer than "
        f"{fewest} images: raise dirichlet-alpha={alpha:g} or use fewer clients"
    )


def _counts(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whole numbers of images nearest to these shares (clients, classes) of each class."""
    # Rounding the ends, not the parts, keeps the sum of all within the class.
    ends = np.rint(np.cumsum(shares, axis=0) * sizes).astype(np.int64)
    return np.diff(ends, axis=0, prepend=0)


@functools.lru_cache(maxsize=8)
def _deal(settings: DataSettings, number: int, clients: int) -> list[np.ndarray]:
    """Positions in domain `number` for each of the clients that share it."""
    domain = load_domain(settings.sources[number], settings.image_format)
    sharing = len(range(number, clients, len(settings.sources)))
    rng = np.random.default_rng((settings.seed, number))
    labels = domain.train.labels.numpy()
    return parts(labels, sharing, settings.partition, settings.alpha, rng, settings.max_images)


def check_size(data: LabelledImages, owner: str) -> None:
    """Raise `UserError` unless there are enough images to train on."""
    if len(data) < 2:
        raise UserError(
            f"{owner} has {len(data)} training images; at least 2 are needed: "
            "use fewer clients or more images"
        )
