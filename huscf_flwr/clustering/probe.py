"""The probe: what one discriminator makes of every client's images, whatever their labels.

Activations of training say less about whose images are of one kind: every client's come from heads
of its own, and depend on the labels of its images, which the discriminator is told. In a probe all
clients have the same discriminator, as it was averaged, with the statistics that its batch norms
have learnt; and labels are left open: the first block's output is the mean over all labels.
"""

import torch
from torch import Tensor

from huscf_flwr.nets import PartialGAN

IMAGES = 128
"""Of each client at most."""


@torch.no_grad()
def first_outputs(nets: PartialGAN, images: Tensor, num_classes: int) -> Tensor:
    """The output of the discriminator's first blocks, those in `nets`.

    Parameters
    ----------
    nets: some of the discriminator's blocks, from the first one on, in evaluation mode.
    images: float32 (n, C, H, W) in [-1, 1].
    num_classes: labels are 0 to num_classes - 1.

    Returns
    -------
    (n, *features)
    """
    first, *rest = nets.disc.values()
    labels = (torch.full((len(images),), c, device=images.device) for c in range(num_classes))
    out: Tensor = torch.stack([first(images, of_class) for of_class in labels]).mean(dim=0)
    for block in rest:
        out = block(out)
    return out


@torch.no_grad()
def go_on(nets: PartialGAN, outputs: Tensor, first: int) -> Tensor:
    """What the blocks in `nets` from number `first` on make of the outputs of those before."""
    for index, block in nets.disc.items():
        if int(index) >= first:
            outputs = block(outputs)
    return outputs
