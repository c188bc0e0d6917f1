"""Noise that a client adds to its images and labels itself, before anything is made of them.

Each image gets its noise once and for good, whatever it is then used for and however often: all
that ever leaves a client is made of one noisy version of it, so that nothing is won by watching
for long, and what local differential privacy says of that version holds for all of it. Where runs
differ in how much noise they ask for, more noise is added to the version with less, so that all
versions together tell what the one with least noise tells. Generated images get the same kind of
noise before the discriminator sees them; so what it is to tell apart are noisy real images and
noisy generated ones, and the generator learns images without noise.

Source: for images AmbientGAN (Bora et al., ICLR 2018), for labels RCGAN (Thekumparampil et al.,
NeurIPS 2018), whose randomised response is Warner's of 1965.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.draws import Draws, Purpose
from huscf_flwr.errors import UserError

NOISE_STEP = 0.125
"""Noise of images is a multiple of this."""
MOST_NOISE = 16.0
"""And this at most: an epsilon of 10 for 16 pixels in grey."""

EPSILON_STEP, MOST_EPSILON = 0.25, 8.0
"""Epsilons of labels are multiples of this, and this at most."""


def check_levels(images: float, label_epsilon: float) -> None:
    """Raise `UserError` unless noise grows, and epsilons fall, in the same steps in all runs."""
    for name, value, step, most in (
        ("image-noise", images, NOISE_STEP, MOST_NOISE),
        ("label-epsilon", label_epsilon, EPSILON_STEP, MOST_EPSILON),
    ):
        if value % step or value > most:
            raise UserError(
                f"{name}={value:g}: must be a multiple of {step:g}, and {most:g} at most"
            )


@dataclass(frozen=True)
class LocalNoise:
    """How much noise there is.

    Attributes
    ----------
    images: standard deviation of the Gaussian noise of each value of an image, of values from
        -1 to 1; 0: none.
    label_epsilon: how far a label may change the odds of what is said in its place, as the
        logarithm of a ratio; 0: labels are said as they are.
    num_classes: that labels are of.
    """

    images: float
    label_epsilon: float
    num_classes: int

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.images > 0 or self.label_epsilon > 0

    @property
    def kept(self) -> float:
        """How probably a label stays what it is; each other one is as probable as any other."""
        if not self.label_epsilon:
            return 1.0
        return 1 / (1 + (self.num_classes - 1) * math.exp(-self.label_epsilon))

    def of_images(self, shape: torch.Size, random: np.random.Generator) -> Tensor:
        """What is added to images of this shape, float32."""
        return torch.from_numpy(self.images * random.standard_normal(shape, dtype=np.float32))

    def of_labels(self, labels: Tensor, random: np.random.Generator) -> Tensor:
        """What is said in place of these labels, int64 (n,)."""
        if not self.label_epsilon or self.num_classes == 1:
            return labels
        true = labels.numpy()
        other = (true + random.integers(1, self.num_classes, len(true))) % self.num_classes
        return torch.from_numpy(np.where(random.random(len(true)) < self.kept, true, other))

    def for_good(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) from -1 to 1 and their labels, each with the noise that is its own.

        It follows from the image, so that it is the same in whatever order they come.
        """
        noisy, said = torch.empty_like(images), torch.empty_like(labels)
        for i, image in enumerate(images):
            digest = int.from_bytes(hashlib.sha256(image.numpy().tobytes()).digest())
            noisy[i] = image + self._walked(image.shape, draws(Purpose.FOR_GOOD, digest))
            label = int(labels[i])
            said[i] = self._handed_on(label, draws(Purpose.FOR_GOOD, digest, label))
        return noisy, said

    def _walked(self, shape: torch.Size, random: np.random.Generator) -> Tensor:
        """Noise that has grown step by step: that of fewer steps is where it came by."""
        levels = NOISE_STEP * np.arange(round(self.images / NOISE_STEP) + 1)
        found = np.zeros(shape, dtype=np.float32)
        for step in np.sqrt(np.diff(levels**2)):
            found += step * random.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(found)

    def _handed_on(self, label: int, random: np.random.Generator) -> int:
        """What is said of a label: of what is said with a larger epsilon, and so on."""
        if not self.label_epsilon:
            return label
        steps = np.arange(MOST_EPSILON, self.label_epsilon - EPSILON_STEP / 2, -EPSILON_STEP)
        # Who does not keep to a label draws one of all: so these shares multiply.
        keeping = np.expm1(steps) / (np.exp(steps) + self.num_classes - 1)
        for share in keeping / np.concatenate([[1.0], keeping[:-1]]):
            drawn = int(random.integers(self.num_classes))
            label = label if random.random() < share else drawn
        return label

    def true_shares(self, said: Tensor) -> np.ndarray:
        """Shares of the classes (num_classes,) that labels probably have of which these are said.

        The estimate without bias, where that has no share below zero.
        """
        shares = np.bincount(said.numpy(), minlength=self.num_classes) / len(said)
        if self.num_classes == 1 or self.kept == 1:
            return np.asarray(shares)
        other = (1 - self.kept) / (self.num_classes - 1)
        found = np.clip((shares - other) / (self.kept - other), 0.0, None)
        return np.asarray(found / found.sum())
