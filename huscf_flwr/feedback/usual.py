"""What is usual of what clients feed back, for the guard: what one net makes of its own images."""

import torch

from huscf_flwr.defences.guard import Usual, UsualFrames
from huscf_flwr.feedback.exchanges import JUDGED
from huscf_flwr.nets import (
    DISC,
    GEN,
    NetSpec,
    PartialGAN,
    State,
    net_shapes,
    run_blocks,
    whole_net,
)
from huscf_flwr.nets.losses import generator_loss

_TOLERANCE = 5.0
"""As for gradients of split nets."""

_BATCH = 16  # enough for a level, and cheap
_LEAST = 1e-12


def usual_feedback(
    spec: NetSpec, state: State, *, batch_size: int, saturating: bool, seed: int
) -> UsualFrames:
    """The size of a client's feedback.

    Parameters
    ----------
    spec, state: the whole nets, which stay as they are.
    batch_size: that of the clients, by whose inverse gradients go.
    saturating: see `generator_loss`.
    seed: of the latent vectors.
    """
    shapes = net_shapes(spec)
    whole = whole_net(shapes)
    nets = PartialGAN(spec, state, gen=whole[GEN], disc=whole[DISC]).train()
    random = torch.Generator().manual_seed(seed)
    latent = torch.randn((_BATCH, shapes.latent_size), generator=random)
    labels = torch.arange(_BATCH) % spec.num_classes
    latent = latent.to(next(nets.parameters()).dtype)
    with torch.no_grad():
        images = run_blocks(nets.gen.values(), latent, labels)
    logits = run_blocks(nets.disc.values(), images.requires_grad_(), labels)
    loss = generator_loss(logits, saturating=saturating)
    (gradient,) = torch.autograd.grad(loss, images)
    level = float(gradient.square().mean().sqrt()) * _BATCH / batch_size
    return [{}, {JUDGED: Usual(max(level, _LEAST), _TOLERANCE)}]
