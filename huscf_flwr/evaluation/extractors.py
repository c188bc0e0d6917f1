"""What turns images into the features that distances compare: a classifier, or Inception-v3."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.batches import to_unit
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.classifier import Classifier

DOWNLOAD = "download"
log = logging.getLogger(__name__)
_BATCH = 50
_TELL_SECONDS = 20.0
_loader = threading.Lock()


@dataclass(frozen=True)
class Extractor:
    """A way from images to features.

    Attributes
    ----------
    name: which net.
    suffix: what names of distances on its features end in; empty for Inception-v3 alone.
    resize: what it does to the size of images.
    features: from images (n, C, H, W), uint8, or float32 in [-1, 1], to features (n, d).
    """

    name: str
    suffix: str
    resize: str
    features: Callable[[Tensor], np.ndarray]


def classifier_extractor(classifier: Classifier) -> Extractor:
    """The penultimate layer of a classifier of real images of the same kind."""
    return Extractor(
        "classifier of the real training images",
        "_classifier",
        "none",
        lambda images: classifier.features(images).numpy(),
    )


def inception_extractor(weights: str, device: str) -> Extractor:
    """pytorch-fid's Inception-v3, 2048 features; grey images become three equal channels.

    Parameters
    ----------
    weights: path of pytorch-fid's weights, or `download` to let that library fetch them.
    device: where torch computes.

    Raises
    ------
    UserError: the weights cannot be downloaded, or the file is missing or holds something else.
    """
    from pytorch_fid import inception

    def read(*_: Any, **__: Any) -> Any:
        return torch.load(weights, map_location="cpu", weights_only=True)

    # The library builds its net only with weights that this function of its module gives.
    with _loader:
        fetch = inception.load_state_dict_from_url
        if weights != DOWNLOAD:
            inception.load_state_dict_from_url = read
        try:
            net = inception.InceptionV3().to(device).eval()
        except Exception as error:  # torch.load raises whatever unpickling finds
            raise UserError(_explain(weights, error)) from None
        finally:
            inception.load_state_dict_from_url = fetch

    @torch.no_grad()
    def features(images: Tensor) -> np.ndarray:
        parts = []
        told = time.monotonic()
        for part in images.expand(-1, 3, -1, -1).split(_BATCH):
            pooled = net((to_unit(part).to(device) + 1) / 2)[0]
            parts.append(pooled.flatten(1).cpu())
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                log.info(
                    "scoring: Inception saw %d of %d images", len(parts) * _BATCH, len(images)
                )
        return torch.cat(parts).numpy()

    return Extractor("Inception-v3 of pytorch-fid", "", "bilinear to 299 x 299", features)


def _explain(weights: str, error: Exception) -> str:
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    if weights == DOWNLOAD:
        return (
            f'inception-weights="{DOWNLOAD}": the download failed ({cause}); give the path of '
            'the file, or "" to do without'
        )
    if not Path(weights).is_file():
        return f'inception-weights="{weights}": no such file'
    return (
        f'inception-weights="{weights}": not the weights of pytorch-fid\'s Inception-v3: {cause}'
    )
