"""What nets of several kinds are made of: first blocks, which take labels, and halving ones."""

import torch
from torch import Tensor, nn


class GeneratorInput(nn.Module):
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


class DiscriminatorInput(nn.Module):
    """Image, and label embedding as one more channel of it, to the first feature map."""

    def __init__(self, channels: int, num_classes: int, image_size: int, features: int) -> None:
        super().__init__()
        self.plane = (1, image_size, image_size)
        self.embedding = nn.Embedding(num_classes, image_size * image_size)
        self.layers = down(channels + 1, features, kernel=4, stride=2)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        plane = self.embedding(labels).view(-1, *self.plane)
        out: Tensor = self.layers(torch.cat([images, plane], dim=1))
        return out


def down(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
