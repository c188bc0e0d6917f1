"""The classifier that judges images, its training, and its cache on disk.

A classifier of real images is the same for every run on the same data; it is kept in a cache, so
that comparing many runs trains it once.
"""

import hashlib
import os
import threading
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from huscf_flwr.data.batches import LabelledImages, to_unit
from huscf_flwr.system.files import replacing

_WIDTH = 32
_FEATURES = 128  # of the penultimate layer
_BATCH = 100
_STEPS = 400
_LEARNING_RATE = 1e-3
_CHUNK = 1000  # images judged at a time, so that memory stays flat

# Initial parameters and dropout draw from torch's global generator: threads take turns with it, or
# a classifier would not follow from its seed.
_global_generator = threading.Lock()


class Classifier(nn.Module):
    """A small convolutional classifier for any image size of at least 8.

    As wide as the one by which the paper's authors measure utility; dropout keeps one that learns
    from generated images from relying on what only those have.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        size = image_size // 4
        self.body = nn.Sequential(
            *_convolution(channels, _WIDTH),
            *_convolution(_WIDTH, 2 * _WIDTH),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH * size * size, _FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(_FEATURES, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, C, H, W) in [-1, 1]."""
        out: Tensor = self.head(self.body(images))
        return out

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the last layer decides by, (n, 128)."""
        return torch.cat([self.body(part) for part in images.split(_CHUNK)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (n, num_classes)."""
        return torch.cat([self(part).softmax(dim=1) for part in images.split(_CHUNK)])

    def predict(self, images: Tensor) -> Tensor:
        """The most probable classes, int64 (n,)."""
        return self.probabilities(images).argmax(dim=1)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Half as high and wide."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
    ]


def train_classifier(images: Tensor, labels: Tensor, num_classes: int, seed: int) -> Classifier:
    """Train a classifier with Adam and a learning rate that falls to zero, for 400 steps.

    Real and generated images are learnt in the same way.

    Parameters
    ----------
    images: float32 (n, C, H, W) in [-1, 1], at least 2.
    labels: int64 (n,).
    num_classes: number of outputs.
    seed: of initial parameters, of the order of images (shuffled epochs), and of dropout.

    Returns
    -------
    The classifier, in evaluation mode.
    """
    with _global_generator, torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = Classifier(images.shape[2], images.shape[1], num_classes).train()
        optimiser = torch.optim.Adam(classifier.parameters(), _LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(_STEPS):
            if len(order) < min(_BATCH, len(labels)):
                order = torch.cat([order, torch.randperm(len(labels))])
            chosen, order = order[:_BATCH], order[_BATCH:]
            optimiser.zero_grad()
            cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
            optimiser.step()
            schedule.step()
    return classifier.requires_grad_(False).eval()


def real_classifier(train: LabelledImages, num_classes: int, seed: int) -> Classifier:
    """The classifier of real training images: from the cache, or trained and put there.

    A cache that cannot be read or written is ignored.
    """
    with torch.device("meta"):
        classifier = Classifier(train.images.shape[2], train.images.shape[1], num_classes)
    recipe = f"{classifier} {_BATCH} {_LEARNING_RATE} {_STEPS} {seed}"
    path = _cache_folder() / f"classifier-{_digest(recipe, train)}.safetensors"
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path), assign=True)
        return classifier.requires_grad_(False).eval()
    except (OSError, safetensors.SafetensorError, RuntimeError):
        pass
    classifier = train_classifier(to_unit(train.images), train.labels, num_classes, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            safetensors.torch.save_file(classifier.state_dict(), aside)
    except (OSError, safetensors.SafetensorError):
        pass
    return classifier


def _digest(recipe: str, data: LabelledImages) -> str:
    shape = tuple(data.images.shape)
    digest = hashlib.sha256(f"{recipe} {shape}".encode())
    digest.update(data.images.numpy().tobytes())
    digest.update(data.labels.numpy().tobytes())
    return digest.hexdigest()[:32]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "huscf-flwr"
