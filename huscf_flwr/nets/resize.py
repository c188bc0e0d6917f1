"""A net for photographs, of 32 pixels and more."""

from itertools import pairwise

from torch import nn

from huscf_flwr.errors import UserError
from huscf_flwr.nets.blocks import Blocks, NetSpec, register_net
from huscf_flwr.nets.layers import DiscriminatorInput, GeneratorInput, down

_SMALLEST = 4  # feature maps are halved down to this, or as long as they do not get smaller


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


@register_net("resize")
def resize(spec: NetSpec) -> Blocks:
    """A conditional GAN whose generator enlarges by interpolation, not by transposed convolutions.

    Those leave a pattern of checks on images, which takes long to be unlearnt (Odena, Dumoulin and
    Olah, Deconvolution and Checkerboard Artifacts, 2016). Both nets have a block for each halving
    of the image, down to 4 to 7 pixels, with the more channels the smaller the feature map.

    Raises
    ------
    UserError: the image size is below 16, or cannot be halved as often.
    """
    halvings = (spec.image_size // _SMALLEST).bit_length() - 1
    if spec.image_size < 16 or spec.image_size % 2**halvings:
        raise UserError(
            f"image-size={spec.image_size}: the net resize needs 4, 5, 6 or 7 times a power of 2, "
            "at least 16"
        )
    w, smallest, latent_size = spec.width, spec.image_size >> halvings, 100
    made = [w * 3 * (level + 1) // 2 for level in range(halvings + 1)]  # by halvings
    seen = [w * 2 * (level + 1) for level in range(halvings)]  # the first has halved once
    generator = [
        GeneratorInput(latent_size, spec.num_classes, made[-1], smallest),
        *(_up(made[level], made[level - 1]) for level in range(halvings, 0, -1)),
        nn.Sequential(nn.Conv2d(made[0], spec.channels, 3, padding=1), nn.Tanh()),
    ]
    discriminator = [
        DiscriminatorInput(spec.channels, spec.num_classes, spec.image_size, seen[0]),
        *(down(*pair, kernel=4, stride=2) for pair in pairwise(seen)),
        nn.Sequential(nn.Flatten(), nn.Linear(seen[-1] * smallest**2, 1)),
    ]
    return Blocks(generator, discriminator, latent_size)
