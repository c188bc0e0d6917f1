"""How large what whole nets compute is, by which clients are bounded."""

import torch
from torch import Tensor

from huscf_flwr.nets import DISC, GEN, NetSpec, PartialGAN, State, net_shapes, whole_net

BATCH = 32
"""Samples that a level is taken from: enough for that, and cheap."""

_LEAST = 1e-12


def whole_nets(spec: NetSpec, state: State) -> PartialGAN:
    """Both nets in training mode, of a state that stays as it is."""
    whole = whole_net(net_shapes(spec))
    return PartialGAN(spec, state, gen=whole[GEN], disc=whole[DISC]).train()


def latent_batch(spec: NetSpec, nets: PartialGAN, seed: int) -> tuple[Tensor, Tensor]:
    """`BATCH` latent vectors, in the nets' dtype, and a label for each."""
    random = torch.Generator().manual_seed(seed)
    latent = torch.randn((BATCH, net_shapes(spec).latent_size), generator=random)
    labels = torch.arange(BATCH) % spec.num_classes
    return latent.to(next(nets.parameters()).dtype), labels


def level(tensor: Tensor) -> float:
    """Root mean square of its values, at least next to nothing."""
    return max(float(tensor.detach().square().mean().sqrt()), _LEAST)
