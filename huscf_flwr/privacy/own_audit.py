"""A client's own audit: what the server could see of the batch that it sends next.

By inversion, which needs nothing but the client's own blocks, with its other images for what is
known of the domain. Numbers of it go to the server. Where clients add noise there are none: they
would be of images without.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.common import Scalar

from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.nets import run_blocks
from huscf_flwr.privacy.exposure import Exposure, Found
from huscf_flwr.privacy.rebuilding import (
    INVERSION,
    Rebuilt,
    Sender,
    Victim,
    compared,
    labels_to_generate,
    rebuild,
)
from huscf_flwr.split.cuts import Cut

_IMAGES = ("inverted", "mean-image", "another")
_LABELS = ("labels", "labels-to-generate")
_PREFIX = "seen-"


def audit_own(sender: Sender, victim: Victim, known: LabelledImages, *, seed: int) -> Rebuilt:
    """What the server could see of a batch of the client's own.

    Parameters
    ----------
    sender: the client, with a half that nothing else is done with.
    victim: the batch, with the real images.
    known: others of its images.
    seed: of all that is random.
    """
    batch, half = victim.batch, sender.half
    sent = run_blocks(half.disc_head, batch.images, batch.labels).detach()
    attempts = rebuild(sender, sent, known, seed=seed)
    generated = run_blocks(half.gen_head, batch.latent, batch.fake_labels).detach()
    to_generate = labels_to_generate(sender, generated, batch.fake_labels, seed=seed)
    return compared(sender, victim, attempts, to_generate, known, seed=seed)


@dataclass(frozen=True)
class Seen:
    """What a client tells the server of its audit: numbers alone.

    Attributes
    ----------
    inverted, mean_image, another: as in `Exposure`.
    to_generate: share of the labels to generate that are read, if any are.
    """

    inverted: Found
    mean_image: Found
    another: Found
    to_generate: float | None

    @staticmethod
    def of(exposure: Exposure) -> "Seen":
        """What is told of it."""
        inverted = exposure.attacks[INVERSION]
        return Seen(inverted, exposure.mean_image, exposure.another, exposure.to_generate)

    def exposure(self, client: int, cut: Cut, num_classes: int) -> Exposure:
        """What it is of a client with a domain of its own, as the server writes it down."""
        attacks = {INVERSION: self.inverted}
        mean_image, another, chance = self.mean_image, self.another, 1 / num_classes
        of = (attacks, mean_image, another, chance, None, self.to_generate)
        return Exposure(client, "", str(cut), *of)

    def as_metrics(self) -> dict[str, Scalar]:
        """These numbers, by name."""
        found: dict[str, float | None] = {}
        for name, of in zip(_IMAGES, (self.inverted, self.mean_image, self.another), strict=True):
            found |= {f"{name}-ssim": of.ssim, f"{name}-psnr": of.psnr}
        found |= dict(zip(_LABELS, (self.inverted.labels, self.to_generate), strict=True))
        return {_PREFIX + name: value for name, value in found.items() if value is not None}

    @staticmethod
    def from_metrics(metrics: Mapping[str, Scalar]) -> "Seen | None":
        """What a client has told; None if nothing.

        Raises
        ------
        ValueError: a number is missing, or none that this can be.
        """
        told = {n.removeprefix(_PREFIX): v for n, v in metrics.items() if n.startswith(_PREFIX)}
        if not told:
            return None

        def number(name: str, least: float, most: float) -> float:
            value = told.get(name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{_PREFIX}{name}={value!r} must be from {least:g} to {most:g}")
            return float(value)

        labels, to_generate = (number(n, 0.0, 1.0) if n in told else None for n in _LABELS)
        inverted, mean_image, another = (
            Found(number(f"{name}-ssim", -1.0, 1.0), number(f"{name}-psnr", -100.0, 100.0), of)
            for name, of in zip(_IMAGES, (labels, None, None), strict=True)
        )
        return Seen(inverted, mean_image, another, to_generate)
