"""The losses of a conditional GAN, on the logits of one client's batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def loss_if_real(logits: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, 1) against "real"."""
    return binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def loss_if_fake(logits: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, 1) against "fake"."""
    return binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


@dataclass(frozen=True)
class Losses:
    """Losses of one iteration, or their mean over several."""

    generator: float
    discriminator: float

    @staticmethod
    def mean(losses: "list[Losses]") -> "Losses":
        """Mean over a list that has at least one entry."""
        n = len(losses)
        return Losses(
            sum(loss.generator for loss in losses) / n,
            sum(loss.discriminator for loss in losses) / n,
        )
