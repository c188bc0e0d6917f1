"""What is usual of what clients feed back, for the guard: what one net makes of its own images."""

import torch

from huscf_flwr.defences.guard import Usual, UsualFrames
from huscf_flwr.defences.levels import BATCH, latent_batch, level
from huscf_flwr.feedback.exchanges import JUDGED
from huscf_flwr.nets import NetSpec, PartialGAN, run_blocks

_TOLERANCE = 5.0
"""As for gradients of split nets."""


def usual_feedback(spec: NetSpec, nets: PartialGAN, *, batch_size: int, seed: int) -> UsualFrames:
    """The size of a client's feedback.

    Parameters
    ----------
    spec, nets: the whole nets; only the statistics of their normed layers move.
    batch_size: that of the clients, by whose inverse gradients go.
    seed: of the latent vectors.
    """
    latent, labels = latent_batch(spec, nets, seed)
    with torch.no_grad():
        images = run_blocks(nets.gen.values(), latent, labels)
    logits = run_blocks(nets.disc.values(), images.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(spec.gan_loss.generator(logits), images)
    return [{}, {JUDGED: Usual(level(gradient) * BATCH / batch_size, _TOLERANCE)}]
