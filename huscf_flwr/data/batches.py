"""Labelled images of one client, and the endless, repeatable stream of batches drawn from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.draws import Draws, Purpose


@dataclass(frozen=True)
class LabelledImages:
    """Images and their labels.

    Attributes
    ----------
    images: uint8, shape (n, C, H, W).
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
    """Images of uint8 as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8; values outside are clipped, none is rescaled."""
    return ((images.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


class Batch(NamedTuple):
    """What one training iteration of one client needs, B samples of each.

    images: float32 (B, C, H, W) in [-1, 1]; labels: int64 (B,);
    latent: float32 (B, latent_size); fake_labels: int64 (B,), what to generate.
    """

    images: Tensor
    labels: Tensor
    latent: Tensor
    fake_labels: Tensor


class BatchStream:
    """Batch number i of a client: a function of its data, its draws and i alone.

    Real images come in shuffled order, epoch after epoch, without a gap between them, so that all
    batches have the same size. Labels to generate are drawn like the client's own labels. There is
    no state to keep: a client that is created anew for every message goes on where it stopped.
    """

    def __init__(
        self, data: LabelledImages, *, batch_size: int, latent_size: int, draws: Draws
    ) -> None:
        self._data = data
        self._batch_size = batch_size
        self._latent_size = latent_size
        self._draws = draws
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Images it draws from."""
        return len(self._data)

    def __getitem__(self, index: int) -> Batch:
        n, size = len(self._data), self._batch_size
        positions = np.arange(index * size, (index + 1) * size)
        chosen = np.concatenate(
            [
                self._epoch_order(int(epoch))[positions[positions // n == epoch] % n]
                for epoch in np.unique(positions // n)
            ]
        )
        real = self._data.select(torch.from_numpy(chosen))
        random = self._draws(Purpose.BATCH, index)
        latent = random.standard_normal((size, self._latent_size), dtype=np.float32)
        drawn = random.integers(0, n, size)
        return Batch(
            to_unit(real.images),
            real.labels,
            torch.from_numpy(latent),
            self._data.labels[torch.from_numpy(drawn)],
        )

    def starting_at(self, index: int) -> Callable[[int], Batch]:
        """Numbers the batches anew: 0 is this stream's batch `index`."""
        return lambda i: self[index + i]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            order = self._draws(Purpose.ORDER, epoch).permutation(len(self._data))
            self._epoch, self._order = epoch, order
        return self._order
