"""Distances between two sets of images, given as features of any extractor.

Which extractor is what the numbers depend on most, so its name belongs beside them; on features
other than those of Inception-v3 the Fréchet distance is not the FID.
"""

import warnings

import numpy as np

# How pytorch-fid calls scipy, which pyproject.toml keeps to versions that allow it.
warnings.filterwarnings("ignore", "The `disp` argument is deprecated", DeprecationWarning)

_SINGULAR = 1e-10  # least eigenvalue of a covariance, relative to the greatest
_OFFSETS = (1e-6, 1e-4, 1e-2)  # relative to the mean variance; the first is pytorch-fid's


def frechet_distance(one: np.ndarray, other: np.ndarray) -> tuple[float, bool]:
    """Fréchet distance of Gaussians fitted to two sets of features, by pytorch-fid.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017), equation 6. Its
    square root of a product of covariances needs both to be regular, which they are not where
    there are fewer images than features, or where a feature is constant. Then a small multiple of
    the identity is added to both.

    Parameters
    ----------
    one, other: features (n, d) and (m, d), with n and m at least 2.

    Returns
    -------
    The distance, finite and at least 0, and whether it had to be stabilised in this way.

    Raises
    ------
    ValueError: the features are not finite, or even the largest addition does not help.
    """
    from pytorch_fid.fid_score import calculate_frechet_distance

    means = [features.mean(axis=0, dtype=np.float64) for features in (one, other)]
    covariances = [
        np.atleast_2d(np.cov(np.asarray(features, dtype=np.float64), rowvar=False))
        for features in (one, other)
    ]
    if not np.isfinite(covariances).all():
        raise ValueError("the features of the images are not finite")
    size = len(means[0])
    scale = float(np.mean([np.trace(c) / size for c in covariances])) or 1.0
    regular = all(_is_regular(covariance) for covariance in covariances)
    for offset in (0.0, *_OFFSETS) if regular else _OFFSETS:
        first, second = (c + offset * scale * np.eye(size) for c in covariances)
        try:
            distance = calculate_frechet_distance(means[0], first, means[1], second)
        except ValueError:  # the root has imaginary parts
            continue
        if np.isfinite(distance):
            return max(0.0, float(distance)), offset > 0
    raise ValueError("the Fréchet distance of these features cannot be computed")


def _is_regular(covariance: np.ndarray) -> bool:
    values = np.linalg.eigvalsh(covariance)
    return bool(values[0] > _SINGULAR * values[-1])


def kernel_distance(
    one: np.ndarray, other: np.ndarray, *, seed: int, subsets: int = 100, subset_size: int = 1000
) -> float:
    """Kernel distance: the squared maximum mean discrepancy under (x.y / d + 1)^3.

    The unbiased estimate, so that it is around 0, below it at times, for independent draws of the
    same kind, however few images there are; the mean over random subsets. Sets whose classes are
    in fixed proportions are no independent draws: they come out below 0 if they are of the same
    kind. So compare with what real images get in place of generated ones.

    Source: Binkowski et al., "Demystifying MMD GANs" (2018), section 4.

    Parameters
    ----------
    one, other: features (n, d) and (m, d), with n and m at least 2.
    seed: of the subsets.
    subsets: how many.
    subset_size: images of either set in a subset; all, where there are fewer.
    """
    random = np.random.default_rng(seed)
    size = min(len(one), len(other), subset_size)
    sets = [features.astype(np.float64) for features in (one, other)]
    # A set that is no larger is in every subset whole, in some order.
    same = [_within(features) if len(features) == size else None for features in sets]
    values = []
    for _ in range(subsets):
        x, y = (features[random.choice(len(features), size, replace=False)] for features in sets)
        xx, yy = (_within(s) if k is None else k for s, k in zip((x, y), same, strict=True))
        values.append((xx + yy) / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    return float(np.mean(values))


def _within(x: np.ndarray) -> float:
    kernel = _kernel(x, x)
    # An image is not compared with itself: that is what makes the estimate unbiased.
    return float(kernel.sum() - kernel.trace())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inner = x @ y.T / x.shape[1] + 1
    kernel: np.ndarray = inner * inner * inner  # several times as fast as the power of three
    return kernel
