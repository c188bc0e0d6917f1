"""The classifier that judges images, its training, and its cache on disk.

A classifier of real images is the same for every run on the same data; it is kept in a cache, so
that comparing many runs trains it once.
"""

import hashlib

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from huscf_flwr.data.batches import LabelledImages, to_unit
from huscf_flwr.evaluation.cache import cache_folder
from huscf_flwr.evaluation.recipes import STANDARD, Recipe
from huscf_flwr.system.files import replacing
from huscf_flwr.system.seeding import torch_seeded

_WIDTH = 32
_FEATURES = 128  # of the penultimate layer
_LEARNING_RATE = 1e-3
_CHUNK = 1000  # images judged at a time, so that memory stays flat


class Dropout(nn.Dropout):
    """Torch's, with a generator that may be its own.

    The same draws from the same seed; but torch's come from the global generator, with which
    threads have to take turns.
    """

    random: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Some of the values (n, ...) are 0, the others larger by as much; all, in evaluation."""
        if not self.training:
            return values
        kept = values.new_empty(self._drawn(values)).bernoulli_(1 - self.p, generator=self.random)
        return values * kept.div_(1 - self.p)

    def _drawn(self, values: Tensor) -> torch.Size:
        return values.shape


class Dropout2d(Dropout):
    """The same, of whole planes of (n, C, H, W)."""

    def _drawn(self, values: Tensor) -> torch.Size:
        return torch.Size([*values.shape[:2], 1, 1])


class Classifier(nn.Module):
    """A small convolutional classifier for any image size of at least 8.

    As wide as the one by which the paper's authors measure utility, which is `plain`: it has
    neither batch norm nor dropout.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int, plain: bool) -> None:
        super().__init__()
        size = image_size // 4
        convolution = _plain_convolution if plain else _convolution
        self.body = nn.Sequential(
            *convolution(channels, _WIDTH),
            *convolution(_WIDTH, 2 * _WIDTH),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH * size * size, _FEATURES),
            nn.ReLU(),
        )
        last = nn.Linear(_FEATURES, num_classes)
        self.head = last if plain else nn.Sequential(Dropout(0.3), last)
        self.to(memory_format=torch.channels_last)  # in which pooling takes half the time

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, C, H, W), uint8, or float32 in [-1, 1]."""
        out: Tensor = self.head(self._body(images))
        return out

    def _body(self, images: Tensor) -> Tensor:
        out: Tensor = self.body(to_unit(images).contiguous(memory_format=torch.channels_last))
        return out

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the last layer decides by, (n, 128)."""
        return torch.cat([self._body(part) for part in images.split(_CHUNK)])

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
        Dropout2d(0.2),
    ]


def _plain_convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Half as high and wide."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]


def train_classifier(
    images: Tensor, labels: Tensor, num_classes: int, seed: int, recipe: Recipe = STANDARD
) -> Classifier:
    """Train a classifier with Adam, real and generated images in the same way.

    Parameters
    ----------
    images: (n, C, H, W), uint8, or float32 in [-1, 1]; at least 2.
    labels: int64 (n,).
    num_classes: number of outputs.
    seed: of initial parameters, of the order of images (shuffled epochs), and of dropout.
    recipe: of training.

    Returns
    -------
    The classifier, in evaluation mode.
    """
    size, channels = images.shape[2], images.shape[1]
    steps = _steps(recipe, len(labels))
    random = torch.Generator()
    with torch_seeded(seed):
        classifier = Classifier(size, channels, num_classes, recipe.plain).train()
        random.set_state(torch.get_rng_state())
    for module in classifier.modules():
        if isinstance(module, Dropout):
            module.random = random
    with torch.enable_grad():
        optimiser = torch.optim.Adam(classifier.parameters(), _LEARNING_RATE, fused=True)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < min(recipe.batch, len(labels)):
                order = torch.cat([order, torch.randperm(len(labels), generator=random)])
            chosen, order = order[: recipe.batch], order[recipe.batch :]
            optimiser.zero_grad()
            cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
            optimiser.step()
            if recipe.falling:
                falling.step()
    return classifier.requires_grad_(False).eval()


def _steps(recipe: Recipe, images: int) -> int:
    return recipe.steps or recipe.epochs * max(1, images // recipe.batch)


def real_classifier(
    train: LabelledImages, num_classes: int, seed: int, recipe: Recipe = STANDARD
) -> Classifier:
    """The classifier of real training images: from the cache, or trained and put there.

    A cache that cannot be read or written is ignored.
    """
    size, channels = train.images.shape[2], train.images.shape[1]
    with torch.device("meta"):
        classifier = Classifier(size, channels, num_classes, recipe.plain)
    digest = _digest(f"{classifier} {recipe} {seed}", train)
    path = cache_folder() / f"classifier-{digest}.safetensors"
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path), assign=True)
        classifier.to(memory_format=torch.channels_last)
        return classifier.requires_grad_(False).eval()
    except (OSError, safetensors.SafetensorError, RuntimeError):
        pass
    classifier = train_classifier(train.images, train.labels, num_classes, seed, recipe)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            state = {name: v.contiguous() for name, v in classifier.state_dict().items()}
            safetensors.torch.save_file(state, aside)
    except (OSError, safetensors.SafetensorError):
        pass
    return classifier


def _digest(what: str, data: LabelledImages) -> str:
    shape = tuple(data.images.shape)
    digest = hashlib.sha256(f"{what} {shape}".encode())
    digest.update(data.images.numpy().tobytes())
    digest.update(data.labels.numpy().tobytes())
    return digest.hexdigest()[:32]
