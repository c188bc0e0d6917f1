"""Membership: whether what was released tells which images it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from huscf_flwr.data.batches import LabelledImages, to_unit
from huscf_flwr.nets import PartialGAN, run_blocks
from huscf_flwr.nets.generator import Generator

_RARELY = 0.01
_CHUNK = 500


@dataclass(frozen=True)
class Advantage:
    """How well a score tells members from others.

    Attributes
    ----------
    auc: area under the ROC curve; 0.5 by guessing.
    found_at_1_percent: share of the members that are found where 1% of the others are taken for
        such; 0.01 by guessing.
    """

    auc: float
    found_at_1_percent: float


@dataclass(frozen=True)
class Leak:
    """What a cluster's nets tell of the images that they were trained on.

    Attributes
    ----------
    images: members, and as many others, that were tried.
    by_discriminator: members are what it finds more real; None where nobody has it whole.
    by_distance: members are what is nearer to a generated image of its class.
    nearer: share of generated images whose nearest member is nearer than the nearest of as many
        others of the class; 0.5 if nothing is kept of members.
    copies: share of generated images of which a member has a tenth of the distance that any
        other image has.
    """

    images: int
    by_discriminator: Advantage | None
    by_distance: Advantage
    nearer: float
    copies: float


def advantage(members: np.ndarray, others: np.ndarray) -> Advantage:
    """Of scores, larger ones for members."""
    scores = np.concatenate([members, others])
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    wrong, right, _ = roc_curve(truth, scores, drop_intermediate=False)
    found = float(right[wrong <= _RARELY].max())
    return Advantage(float(roc_auc_score(truth, scores)), found)


def alike(
    members: LabelledImages, others: LabelledImages, random: np.random.Generator
) -> tuple[LabelledImages, LabelledImages]:
    """As many of both of each class, drawn at random: what tells them apart is no class."""
    drawn: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label in np.unique(members.labels.numpy()):
        places = [np.flatnonzero(part.labels.numpy() == label) for part in (members, others)]
        count = min(map(len, places))
        for found, own in zip(drawn, places, strict=True):
            found.append(random.permutation(own)[:count])
    first, second = (torch.from_numpy(np.concatenate(found)) for found in drawn)
    return members.select(first), others.select(second)


def attack_membership(
    generator: Generator,
    discriminator: PartialGAN | None,
    pairs: Sequence[tuple[LabelledImages, LabelledImages]],
    *,
    seed: int,
) -> Leak:
    """Attack a cluster's nets.

    Parameters
    ----------
    generator: that of the cluster.
    discriminator: its whole one, in evaluation mode; None if nobody has one.
    pairs: for each of its domains members and other images of it, as `alike` draws them.
    seed: of the latent vectors; as many images are generated of a class as members are tried.
    """
    real: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    near: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    nearer: list[np.ndarray] = []
    copies: list[np.ndarray] = []
    for members, others in pairs:
        made, _ = generator.sample(len(members), members.labels, seed)
        if discriminator is not None:
            for found, part in zip(real, (members, others), strict=True):
                found.append(_logits(discriminator, part))
        for label in members.labels.unique():
            fakes = made[members.labels == label].flatten(1)
            own, rest = (
                to_unit(part.images[part.labels == label]).flatten(1) for part in (members, others)
            )
            to_own, to_rest = torch.cdist(fakes, own), torch.cdist(fakes, rest)
            near[0].append(-to_own.min(dim=0).values.numpy())
            near[1].append(-to_rest.min(dim=0).values.numpy())
            nearest, nearest_other = to_own.min(dim=1).values, to_rest.min(dim=1).values
            nearer.append((nearest < nearest_other).numpy())
            second = torch.full_like(nearest, torch.inf)
            if len(own) > 1:
                second = to_own.topk(2, largest=False).values[:, 1]
            copies.append((nearest < 0.1 * torch.minimum(second, nearest_other)).numpy())
    return Leak(
        sum(len(members) for members, _ in pairs),
        advantage(*(np.concatenate(found) for found in real)) if real[0] else None,
        advantage(*(np.concatenate(found) for found in near)),
        float(np.concatenate(nearer).mean()),
        float(np.concatenate(copies).mean()),
    )


def _logits(discriminator: PartialGAN, data: LabelledImages) -> np.ndarray:
    with torch.no_grad():
        parts = [
            run_blocks(discriminator.disc.values(), to_unit(images), labels)
            for images, labels in zip(
                data.images.split(_CHUNK), data.labels.split(_CHUNK), strict=True
            )
        ]
    found: np.ndarray = torch.cat(parts).flatten().numpy()
    return found
