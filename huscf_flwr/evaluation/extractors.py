"""What turns images into the features that distances compare: a classifier, say."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from huscf_flwr.evaluation.classifier import Classifier


@dataclass(frozen=True)
class Extractor:
    """A way from images to features.

    Attributes
    ----------
    name: which net.
    suffix: what names of distances on its features end in; empty for Inception-v3 alone.
    resize: what it does to the size of images.
    features: from images (n, C, H, W), uint8, or float32 in [-1, 1], to features (n, d).
    real_features: the same, of images that other runs may compare with, too.
    """

    name: str
    suffix: str
    resize: str
    features: Callable[[Tensor], np.ndarray]
    real_features: Callable[[Tensor], np.ndarray]


def classifier_extractor(classifier: Classifier) -> Extractor:
    """The penultimate layer of a classifier of real images of the same kind."""

    def features(images: Tensor) -> np.ndarray:
        found: np.ndarray = classifier.features(images).numpy()
        return found

    name = "classifier of the real training images"
    return Extractor(name, "_classifier", "none", features, features)
