"""How alike two images are. Images here are float (n, C, H, W), in [-1, 1]."""

import torch
from torch import Tensor

RANGE = 2.0
"""Between the darkest and the brightest value of an image."""

SMALLEST = 12
"""Pixels on a side of the smallest images that have a structural similarity."""


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each image to the one at its place, (n,), 1 for equal ones.

    Source: Wang et al., 2004, with their window of 11 pixels; values beyond the range are cut off.
    """
    # Here, since it is heavy, and devices that compare nothing do without.
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(
        images.clamp(-1.0, 1.0), others.clamp(-1.0, 1.0), data_range=RANGE, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (n,), 100 at most; values beyond the range are cut off."""
    error = (images.clamp(-1.0, 1.0) - others.clamp(-1.0, 1.0)).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(RANGE**2 / error.clamp(min=RANGE**2 * 1e-10))
