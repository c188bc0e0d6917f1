"""Noise that a client adds to its images and labels itself, before anything is made of them.

Each image gets its noise once and for good, whatever it is then used for and however often: all
that ever leaves a client is made of one noisy version of it, so that nothing is won by watching
for long, and what local differential privacy says of that version holds for all of it. Generated
images get the same kind of noise before the discriminator sees them; so what it is to tell apart
are noisy real images and noisy generated ones, and the generator learns images without noise.

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
            digest = hashlib.sha256(image.numpy().tobytes()).digest()
            random = draws(Purpose.FOR_GOOD, int.from_bytes(digest))
            noisy[i] = image + self.of_images(image.shape, random)
            said[i : i + 1] = self.of_labels(labels[i : i + 1], random)
        return noisy, said

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
