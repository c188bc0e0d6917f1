"""The client of PFL-GAN-style training: whole nets, on its own images and on generated ones."""

import io

import numpy as np
import torch
from flwr.common import Config, NDArrays, Scalar

from huscf_flwr.clients.base import ClientImages
from huscf_flwr.clients.whole import WholeGANClient, WholeNets
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.nets import to_arrays
from huscf_flwr.procedure import ClientTraining

LABELS = "labels"
"""Which labels a client has, by the name it is returned with."""

MIX_IMAGES, MIX_LABELS = "mix-images", "mix-labels"
"""Keys of a round's config: generated images uint8 (n, C, H, W), labels int64 (n,)."""


class MixingGANClient(WholeGANClient):
    """Trains on its images and a mix of generated ones; says which labels it has."""

    adds_noise = False

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        _, size, metrics = super().finish(part, config)
        half: WholeNets = part.half  # type: ignore[assignment]
        labels = super()._data(config).train.labels
        held = torch.bincount(labels, minlength=self.config.num_classes).clamp(max=1)
        return to_arrays({**half.nets.state_dict(), LABELS: held}), size, metrics

    def _data(self, config: Config) -> ClientImages:
        own = super()._data(config)
        if MIX_IMAGES not in config:
            return own
        mix = LabelledImages(unpacked(config[MIX_IMAGES]), unpacked(config[MIX_LABELS]))
        images = torch.cat([own.train.images, mix.images])
        labels = torch.cat([own.train.labels, mix.labels])
        return ClientImages(LabelledImages(images, labels), own.domain)


def packed(tensor: torch.Tensor) -> bytes:
    """A tensor as a value of a config."""
    file = io.BytesIO()
    np.save(file, tensor.numpy(), allow_pickle=False)
    return file.getvalue()


def unpacked(value: Scalar) -> torch.Tensor:
    """What `packed` gave."""
    assert isinstance(value, bytes)
    return torch.from_numpy(np.load(io.BytesIO(value), allow_pickle=False))
