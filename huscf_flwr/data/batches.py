"""Labelled images of one client, and the endless, repeatable stream of batches drawn from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.draws import Draws, Purpose
from huscf_flwr.data.local_noise import LocalNoise


@dataclass(frozen=True)
class LabelledImages:
    """Images and their labels.

    Attributes
    ----------
    images: uint8, shape (n, C, H, W); float32 from about -1 to 1 where noise has been added.
    labels: int64, shape (n,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> "LabelledImages":
        """The images at these positions, in this order."""
        return LabelledImages(self.images[indices], self.labels[indices])


def to_unit(images: Tensor) -> Tensor:
    """Images of uint8 as float32 in [-1, 1]; those that are floats already as they are."""
    return images if images.is_floating_point() else images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8; values outside are clipped, none is rescaled."""
    return ((images.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


class Batch(NamedTuple):
    """What one training iteration of one client needs, B samples of each.

    images: float32 (B, C, H, W) in [-1, 1]; labels: int64 (B,);
    latent: float32 (B, latent_size); fake_labels: int64 (B,), what to generate;
    said: int64 (B,), what the discriminator is told of that; noise: float32 (B, C, H, W), what
    generated images get before it sees them, None for nothing.
    """

    images: Tensor
    labels: Tensor
    latent: Tensor
    fake_labels: Tensor
    said: Tensor
    noise: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """This batch there, images, noise and latent vectors in this dtype."""
        noise = None if self.noise is None else self.noise.to(device, dtype)
        return Batch(
            self.images.to(device, dtype),
            self.labels.to(device),
            self.latent.to(device, dtype),
            self.fake_labels.to(device),
            self.said.to(device),
            noise,
        )

    @staticmethod
    def stacked(batches: "Sequence[Batch]") -> "Batch":
        """Those of several clients as one, all parts with one dimension more, the first."""
        parts = zip(*([t for t in batch if t is not None] for batch in batches), strict=True)
        return Batch(*(torch.stack(own) for own in parts))

    def shown(self, fake: Tensor) -> Tensor:
        """Generated images (B, C, H, W) as the discriminator gets them."""
        return fake if self.noise is None else fake + self.noise


class BatchStream:
    """Batch number i of a client: a function of its data, its draws and i alone.

    Real images come in shuffled order, epoch after epoch, without a gap between them, so that all
    batches have the same size. Labels to generate are drawn like the client's own labels. There is
    no state to keep: a client that is created anew for every message goes on where it stopped.
    """

    def __init__(
        self,
        data: LabelledImages,
        *,
        batch_size: int,
        latent_size: int,
        draws: Draws,
        noise: LocalNoise | None = None,
    ) -> None:
        """`noise` is what the data has had added already."""
        self._data = data
        self._batch_size = batch_size
        self._latent_size = latent_size
        self._draws = draws
        self._noise = noise
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Images it draws from."""
        return len(self._data)

    def __getitem__(self, index: int) -> Batch:
        n, size = len(self._data), self._batch_size
        real = self._data.select(self.places(index))
        images = to_unit(real.images)
        random = self._draws(Purpose.BATCH, index)
        latent = torch.from_numpy(
            random.standard_normal((size, self._latent_size), dtype=np.float32)
        )
        if self._noise is None:
            labels = self._data.labels[torch.from_numpy(random.integers(0, n, size))]
            return Batch(images, real.labels, latent, labels, labels)
        shares = self._noise.true_shares(self._data.labels)
        labels = torch.from_numpy(random.choice(len(shares), size, p=shares))
        random = self._draws(Purpose.FAKES, index)
        said = self._noise.of_labels(labels, random)
        noise = self._noise.of_images(images.shape, random)
        return Batch(images, real.labels, latent, labels, said, noise)

    def places(self, index: int) -> Tensor:
        """Where the images of batch `index` are in the data, int64 (B,)."""
        n, size = len(self._data), self._batch_size
        positions = np.arange(index * size, (index + 1) * size)
        chosen = [
            self._epoch_order(int(epoch))[positions[positions // n == epoch] % n]
            for epoch in np.unique(positions // n)
        ]
        return torch.from_numpy(np.concatenate(chosen))

    def starting_at(self, index: int) -> Callable[[int], Batch]:
        """Numbers the batches anew: 0 is this stream's batch `index`."""
        return lambda i: self[index + i]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            order = self._draws(Purpose.ORDER, epoch).permutation(len(self._data))
            self._epoch, self._order = epoch, order
        return self._order
