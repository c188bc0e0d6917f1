"""Denoising: what an image with noise probably was.

The attacker knows how noise is drawn, since the run config tells everybody, and other images of
the domain. Two ways to say what these tell of a client's images, each with the mean of what an
image may have been, by Bayes' rule, and how probable each label is:

- neighbours: an image is one of the known ones, give or take a little;
- Gaussians: the images of a class are normally distributed, with the mean and covariance that the
  known ones of it have. That keeps more of what is an image's own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from huscf_flwr.data.local_noise import LocalNoise

_APART = 0.5
"""Standard deviation, in each value, of an image from the known one that it is nearly."""

_BESIDE = 0.05
"""The same, of what no known image of the class has, beside what their covariance says."""


@dataclass(frozen=True)
class Denoised:
    """Images float (n, C, H, W), and how probable each label is (n, classes)."""

    images: Tensor
    labels: Tensor


def by_neighbours(
    noisy: Tensor, said: Tensor | None, known: Tensor, labels: Tensor, noise: LocalNoise
) -> Denoised:
    """What images probably were, if they are nearly known ones.

    Parameters
    ----------
    noisy: float (n, C, H, W), with noise.
    said: int64 (n,), what is said in place of their labels; None if that is not known.
    known: other images (m, C, H, W), without noise.
    labels: theirs, int64 (m,).
    noise: what was added.
    """
    given, places = noisy.flatten(1), known.flatten(1)
    variance = noise.images**2 + _APART**2
    likely = -torch.cdist(given, places).square() / (2 * variance)
    shares = (likely + _odds(said, noise)[:, labels]).softmax(dim=1)
    nearest = shares @ places
    images = nearest + _APART**2 / variance * (given - nearest)
    return Denoised(images.view_as(noisy), shares @ one_hot(labels, noise.num_classes).float())


def by_gaussians(
    noisy: Tensor, said: Tensor | None, known: Tensor, labels: Tensor, noise: LocalNoise
) -> Denoised:
    """What images probably were, if those of a class are normally distributed; see above."""
    given, places = noisy.flatten(1).double(), known.flatten(1).double()
    beside, added = _BESIDE**2, noise.images**2
    likely = torch.full((len(given), noise.num_classes), -torch.inf, dtype=torch.float64)
    means = torch.zeros(len(given), noise.num_classes, given.shape[1], dtype=torch.float64)
    for label in labels.unique():
        of_class = places[labels == label]
        centre = of_class.mean(dim=0)
        _, values, directions = torch.linalg.svd(of_class - centre, full_matrices=False)
        spread = values.square() / max(1, len(of_class) - 1)
        # In these directions images vary by so much, in all others by `beside` alone.
        parts = (given - centre) @ directions.T
        rest = given - centre - parts @ directions
        total, rest_total = spread + beside + added, beside + added
        left = given.shape[1] - len(spread)
        likely[:, label] = math.log(len(of_class)) - 0.5 * (
            (parts.square() / total + total.log()).sum(dim=1)
            + rest.square().sum(dim=1) / rest_total
            + left * math.log(rest_total)
        )
        kept = parts * ((spread + beside) / total)
        means[:, label] = centre + kept @ directions + beside / rest_total * rest
    shares = (likely + _odds(said, noise)).softmax(dim=1)
    images = (shares[:, :, None] * means).sum(dim=1)
    return Denoised(images.to(noisy.dtype).view_as(noisy), shares.float())


def _odds(said: Tensor | None, noise: LocalNoise) -> Tensor:
    """How probable what is said is with each label, as logarithms (n or 1, classes)."""
    if said is None or noise.num_classes == 1:
        return torch.zeros(1, noise.num_classes)
    other = max((1 - noise.kept) / (noise.num_classes - 1), 1e-300)
    is_said = one_hot(said, noise.num_classes).bool()
    return torch.where(is_said, math.log(noise.kept), math.log(other))
