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


def each_if_real(logits: Tensor) -> Tensor:
    """As `loss_if_real` of several clients, (clients,), of their logits (clients, B, 1)."""
    each = binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")
    return each.mean(dim=(1, 2))


def each_if_fake(logits: Tensor) -> Tensor:
    """As `loss_if_fake` of several clients, (clients,), of their logits (clients, B, 1)."""
    each = binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")
    return each.mean(dim=(1, 2))


def generator_loss(logits: Tensor, *, saturating: bool = False) -> Tensor:
    """Of logits (B, 1) of generated images: the mean of -log D, or of log(1 - D), as in the paper
    on GANs, where it is `saturating`: that hardly has a gradient while D is sure of itself."""
    return -loss_if_fake(logits) if saturating else loss_if_real(logits)


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
