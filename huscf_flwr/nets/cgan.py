"""The paper's net."""

import torch
from torch import Tensor, nn

from huscf_flwr.errors import UserError
from huscf_flwr.nets.blocks import Blocks, NetSpec, register_net


class _GeneratorInput(nn.Module):
    """Latent vector and label embedding to the first, smallest feature map."""

    def __init__(self, latent_size: int, num_classes: int, features: int, size: int) -> None:
        super().__init__()
        self.shape = (features, size, size)
        self.embedding = nn.Embedding(num_classes, num_classes)
        outputs = features * size * size
        self.layers = nn.Sequential(
            nn.Linear(latent_size + num_classes, outputs, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        )

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        joined = torch.cat([latent, self.embedding(labels)], dim=1)
        out: Tensor = self.layers(joined)
        return out.view(-1, *self.shape)


class _DiscriminatorInput(nn.Module):
    """Image, and label embedding as one more channel of it, to the first feature map."""

    def __init__(self, channels: int, num_classes: int, image_size: int, features: int) -> None:
        super().__init__()
        self.plane = (1, image_size, image_size)
        self.embedding = nn.Embedding(num_classes, image_size * image_size)
        self.layers = _down(channels + 1, features, kernel=4, stride=2)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        plane = self.embedding(labels).view(-1, *self.plane)
        out: Tensor = self.layers(torch.cat([images, plane], dim=1))
        return out


def _up(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _down(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


@register_net("cgan")
def cgan(spec: NetSpec) -> Blocks:
    """The paper's conditional GAN, generalised over image size, channels, classes and width.

    Layers before a batch norm have no bias: the norm would take it out again.

    Raises
    ------
    UserError: the image size is not divisible by 4, or below 16.
    """
    if spec.image_size < 16 or spec.image_size % 4:
        raise UserError(
            f"image-size={spec.image_size}: the net cgan needs a multiple of 4, at least 16"
        )
    w, size, latent_size = spec.width, spec.image_size // 4, 100
    generator = [
        _GeneratorInput(latent_size, spec.num_classes, 4 * w, size),
        _up(4 * w, 2 * w, kernel=4, stride=2),
        _up(2 * w, 2 * w, kernel=3, stride=1),
        _up(2 * w, w, kernel=4, stride=2),
        nn.Sequential(nn.ConvTranspose2d(w, spec.channels, 3, 1, padding=1), nn.Tanh()),
    ]
    last = (size // 2) ** 2
    discriminator = [
        _DiscriminatorInput(spec.channels, spec.num_classes, spec.image_size, w),
        _down(w, 2 * w, kernel=4, stride=2),
        _down(2 * w, 2 * w, kernel=3, stride=1),
        _down(2 * w, 4 * w, kernel=4, stride=2),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * w * last, 1)),
    ]
    return Blocks(generator, discriminator, latent_size)
