"""What whoever gets a client's activations rebuilds of its images and labels without preparation:
by inversion, and where the client adds noise, by taking that off.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch, LabelledImages, to_unit
from huscf_flwr.data.local_noise import LocalNoise
from huscf_flwr.nets import NetShapes
from huscf_flwr.privacy.denoising import by_gaussians, by_neighbours
from huscf_flwr.privacy.exposure import Exposure, Found
from huscf_flwr.privacy.inversion import Release, invert
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails

INVERSION = "inversion"
DENOISED = {
    "inversion, denoised by neighbours": by_neighbours,
    "inversion, denoised by Gaussians": by_gaussians,
}
"""The attacks, by name."""

_INVERSION_STEPS = 200


@dataclass(frozen=True)
class Sender:
    """What a server knows of clients of one kind.

    Attributes
    ----------
    half: a client's half, with the parameters it was handed. Passes through it change the
        statistics of its norms.
    cut, shapes: of its nets.
    noise: what clients add to their data, which the run config tells everybody; or None.
    num_classes: of the run.
    """

    half: HeadsAndTails
    cut: Cut
    shapes: NetShapes
    noise: LocalNoise | None
    num_classes: int


@dataclass(frozen=True)
class Victim:
    """A client that is attacked.

    Attributes
    ----------
    number: who it is.
    domain: of its images, empty where they are its own.
    batch: what it trains on, as it is sent through its head.
    images, labels: the real images of that, float (B, C, H, W), and their labels.
    most_common: share of its most common class, where that is known.
    """

    number: int
    domain: str
    batch: Batch
    images: Tensor
    labels: Tensor
    most_common: float | None


@dataclass(frozen=True)
class Attempt:
    """What one attack made of a batch: images (B, C, H, W), and labels (B,) if it reads them."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Rebuilt:
    """Images that attacks made of a batch, by attack; and what was found."""

    images: dict[str, Tensor]
    exposure: Exposure


def rebuild(
    sender: Sender, sent: Tensor, known: LabelledImages, *, seed: int
) -> dict[str, Attempt]:
    """Images and labels of a batch, by attack.

    Parameters
    ----------
    sender: whose batch it is.
    sent: what its discriminator's head made of that, float (B, *features).
    known: other images of the domain, with labels.
    seed: of where optimisation begins.
    """
    inverted = invert(
        [Release(sender.half.disc_head, sent)],
        known.images.shape[1:],
        sender.num_classes,
        steps=_INVERSION_STEPS,
        seed=seed,
    )
    said = None if inverted.labels is None else inverted.labels.argmax(dim=1)
    found = {INVERSION: Attempt(inverted.inputs, said)}
    if sender.noise is not None:
        images, labels = to_unit(known.images), known.labels
        for name, denoise in DENOISED.items():
            clean = denoise(inverted.inputs, said, images, labels, sender.noise)
            found[name] = Attempt(clean.images, clean.labels.argmax(dim=1))
    return found


def labels_to_generate(sender: Sender, sent: Tensor, true: Tensor, *, seed: int) -> float | None:
    """Share of the labels to generate (B,) that are read off what the generator's head made of
    them, float (B, *features); None if it embeds none.
    """
    found = invert(
        [Release(sender.half.gen_head, sent)],
        (sender.shapes.latent_size,),
        sender.num_classes,
        steps=_INVERSION_STEPS,
        seed=seed,
    )
    if found.labels is None:
        return None
    return float((found.labels.argmax(dim=1) == true).float().mean())


def compared(
    sender: Sender,
    victim: Victim,
    attempts: Mapping[str, Attempt],
    to_generate: float | None,
    known: LabelledImages,
    *,
    seed: int,
) -> Rebuilt:
    """What attacks found of a client, beside what other images of the domain tell of anybody."""
    real, labels = victim.images, victim.labels
    mean_image, another = _without_attack(labels, known, seed)
    exposure = Exposure(
        victim.number,
        victim.domain,
        str(sender.cut),
        {n: Found.of(one.images, one.labels, real, labels) for n, one in attempts.items()},
        Found.of(mean_image, None, real, labels),
        Found.of(another, None, real, labels),
        1 / sender.num_classes,
        victim.most_common,
        to_generate,
    )
    return Rebuilt({name: one.images for name, one in attempts.items()}, exposure)


def _without_attack(labels: Tensor, known: LabelledImages, seed: int) -> tuple[Tensor, Tensor]:
    """For each of these labels the mean image of its class, and another one of it."""
    images = to_unit(known.images)
    random = np.random.default_rng(seed)
    means, others = [], []
    for label in labels:
        of_class = images[known.labels == label]
        of_class = of_class if len(of_class) else images
        means.append(of_class.mean(dim=0))
        others.append(of_class[random.integers(len(of_class))])
    return torch.stack(means), torch.stack(others)
