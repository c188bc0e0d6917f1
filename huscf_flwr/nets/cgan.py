"""The paper's net."""

from torch import nn

from huscf_flwr.errors import UserError
from huscf_flwr.nets.blocks import Blocks, NetSpec, register_net
from huscf_flwr.nets.layers import DiscriminatorInput, GeneratorInput, down


def _up(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


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
        GeneratorInput(latent_size, spec.num_classes, 4 * w, size),
        _up(4 * w, 2 * w, kernel=4, stride=2),
        _up(2 * w, 2 * w, kernel=3, stride=1),
        _up(2 * w, w, kernel=4, stride=2),
        nn.Sequential(nn.ConvTranspose2d(w, spec.channels, 3, 1, padding=1), nn.Tanh()),
    ]
    last = (size // 2) ** 2
    discriminator = [
        DiscriminatorInput(spec.channels, spec.num_classes, spec.image_size, w),
        down(w, 2 * w, kernel=4, stride=2),
        down(2 * w, 2 * w, kernel=3, stride=1),
        down(2 * w, 4 * w, kernel=4, stride=2),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * w * last, 1)),
    ]
    return Blocks(generator, discriminator, latent_size)
