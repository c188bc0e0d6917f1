"""Denoising: the mean of what an image with noise may have been, by Bayes.

The attacker knows how noise is drawn, since the run config tells everybody, and other images of
the domain, which take the place of all that there could be. Where these are like a client's, no
other guess has a smaller mean square error.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from huscf_flwr.data.local_noise import LocalNoise

_BANDWIDTH = 0.5
"""Deviation by which an image may differ from the known one that is nearest to it."""


@dataclass(frozen=True)
class Denoised:
    """Images float (n, C, H, W), and how probable each label is (n, classes)."""

    images: Tensor
    labels: Tensor


def denoise(
    noisy: Tensor, said: Tensor | None, known: Tensor, labels: Tensor, noise: LocalNoise
) -> Denoised:
    """What images probably were.

    Parameters
    ----------
    noisy: float (n, C, H, W), with noise.
    said: int64 (n,), what is said in place of their labels; None if that is not known.
    known: other images (m, C, H, W), without noise.
    labels: theirs, int64 (m,).
    noise: what was added.
    """
    variance = noise.images**2 + _BANDWIDTH**2
    likely = -torch.cdist(noisy.flatten(1), known.flatten(1)).square() / (2 * variance)
    if said is not None and noise.num_classes > 1:
        other = (1 - noise.kept) / (noise.num_classes - 1)
        odds = [math.log(max(share, 1e-12)) for share in (other, noise.kept)]
        likely = likely + torch.where(said[:, None] == labels[None], odds[1], odds[0])
    shares = likely.softmax(dim=1)
    images = (shares @ known.flatten(1)).view(len(noisy), *known.shape[1:])
    return Denoised(images, shares @ one_hot(labels, noise.num_classes).float())
