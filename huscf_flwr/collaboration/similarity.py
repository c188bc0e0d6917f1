"""How far sets of images are from each other, and how much of each belongs into a client's mix.

Pure functions on numbers. The formulas are this project's reading of the abstract of PFL-GAN; the
paper's own could not be had.
"""

import numpy as np

_LEAST_VARIANCE = 1e-4
_LEAST_SHARE = 0.1


def divergences(sets: list[np.ndarray]) -> np.ndarray:
    """Kullback-Leibler divergences between normal distributions fitted to these sets.

    Parameters
    ----------
    sets: (n, d) each, latents of images; coordinates count as independent.

    Returns
    -------
    (sets, sets), the mean of both directions.
    """
    means = np.stack([of_set.mean(axis=0) for of_set in sets]).astype(float)
    variances = np.stack([of_set.var(axis=0) for of_set in sets]).astype(float) + _LEAST_VARIANCE
    ratios = variances[:, None] / variances[None]
    shifts = (means[:, None] - means[None]) ** 2 / variances[None]
    one_way = 0.5 * (ratios + shifts - 1 - np.log(ratios)).sum(axis=-1)
    return np.asarray(0.5 * (one_way + one_way.T))


def mixing_weights(between: np.ndarray) -> np.ndarray:
    """How much of each client's images belongs into each client's mix.

    Parameters
    ----------
    between: (clients, clients), `divergences`.

    Returns
    -------
    (clients, clients), rows of sum 1: `exp(-divergence / median)`, with the median over a client's
    fellows; nothing of those with less than a tenth of the most similar one's.
    """
    count = len(between)
    if count == 1:
        return np.ones((1, 1))
    own = np.eye(count, dtype=bool)
    fellows = np.where(own, np.nan, between)
    scale = np.maximum(np.nanmedian(fellows, axis=1, keepdims=True), 1e-12)
    weights = np.exp(-fellows / scale)
    weights[weights < _LEAST_SHARE * np.nanmax(weights, axis=1, keepdims=True)] = 0.0
    weights[own] = 1.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
