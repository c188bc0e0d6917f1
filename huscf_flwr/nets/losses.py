"""The losses of a conditional GAN, by what they make of logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

BCE, SATURATING = "bce", "saturating"


@dataclass(frozen=True)
class GANLoss:
    """What nets lose by logits (..., B, 1): the mean over a client's batch, (...,).

    Attributes
    ----------
    if_real, if_fake: what the discriminator loses on images that are real, or generated.
    generator: what the generator loses on what it generated.
    """

    if_real: Callable[[Tensor], Tensor]
    if_fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _batch_mean(of_each: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda logits: of_each(logits).mean(dim=(-2, -1))


def _bce_if_real(logits: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")


def _bce_if_fake(logits: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")


_REAL, _FAKE = _batch_mean(_bce_if_real), _batch_mean(_bce_if_fake)

LOSSES = {
    BCE: GANLoss(_REAL, _FAKE, _REAL),
    SATURATING: GANLoss(_REAL, _FAKE, lambda logits: -_FAKE(logits)),
}
"""By name. `bce`: cross entropy, the paper's; `saturating`: the same, and log(1 - D) for the
generator, as in the paper on GANs, which hardly has a gradient while D is sure of itself."""


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
