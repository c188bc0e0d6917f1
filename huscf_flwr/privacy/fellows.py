"""What a client learns from its cluster's average: of classes that only one of its fellows has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from huscf_flwr.evaluation.classifier import Classifier
from huscf_flwr.nets.generator import Generator

_IMAGES = 200


@dataclass(frozen=True)
class Learned:
    """What fellows have of a class of one client.

    Attributes
    ----------
    client, label: whose it is, and which.
    recognised: share of images that the cluster's generator makes with that label in which a
        classifier of real images sees it.
    otherwise: the same of images that it makes with other labels.
    """

    client: int
    label: int
    recognised: float
    otherwise: float


def sole_labels(counts: Mapping[int, np.ndarray]) -> dict[int, int]:
    """Labels that one client alone has: their client, by label.

    `counts` are, by client, of images of each class, (classes,).
    """
    table = np.stack(list(counts.values()))
    holders = (table > 0).sum(axis=0)
    clients = list(counts)
    return {
        int(label): clients[int(table[:, label].argmax())]
        for label in np.flatnonzero(holders == 1)
    }


def learned(
    generator: Generator, classifier: Classifier, sole: Mapping[int, int], *, seed: int
) -> list[Learned]:
    """How well fellows can make images of those labels, by a classifier of the domain's images."""
    classes = generator.spec.num_classes
    found = []
    for label, client in sole.items():
        of_it, _ = generator.sample(_IMAGES, label, seed)
        others = torch.tensor([other for other in range(classes) if other != label])
        of_others, _ = generator.sample(_IMAGES, others[torch.arange(_IMAGES) % len(others)], seed)
        seen, otherwise = (
            float((classifier.predict(images) == label).float().mean())
            for images in (of_it, of_others)
        )
        found.append(Learned(client, label, seen, otherwise))
    return found
