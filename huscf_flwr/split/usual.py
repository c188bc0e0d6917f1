"""What is usual of what clients send, for the guard: what their nets send for generated images."""

from collections.abc import Collection

import torch
from torch import Tensor

from huscf_flwr.defences.guard import Usual, UsualFrames
from huscf_flwr.defences.levels import BATCH, latent_batch, level
from huscf_flwr.nets import NetSpec, PartialGAN, each_output, net_shapes
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange

_ACTIVATION_TOLERANCE = 2.0
"""Those of honest clients are within 2% of each other's: normed layers made them."""

_GRADIENT_TOLERANCE = 5.0
"""Those of honest clients, batch by batch, were up to 4.3 times as large as for generated images;
their means over a round of the default run between 0.6 and 3."""


def usual_frames(
    spec: NetSpec, nets: PartialGAN, cuts: Collection[Cut], *, batch_size: int, seed: int
) -> tuple[dict[Cut, UsualFrames], float]:
    """What a client sends in an iteration, by where its nets are cut.

    From one pass through the whole nets, which computes what all cuts do. Its images are generated
    ones: what the discriminator makes of real ones is about as large.

    Parameters
    ----------
    spec, nets: the whole nets; only the statistics of their normed layers move.
    cuts: where they are cut.
    batch_size: that of the clients, by whose inverse gradients go.
    seed: of the latent vectors.

    Returns
    -------
    What is usual, by cut; and how probably real the nets find images that they generate, on
    average.
    """
    shapes = net_shapes(spec)
    latent, labels = latent_batch(spec, nets, seed)
    gen = each_output(nets.gen.values(), latent, labels)
    disc = each_output(nets.disc.values(), gen[-1], labels)
    scale = BATCH / batch_size
    told_loss, judged_loss = spec.gan_loss.if_fake(disc[-1]), spec.gan_loss.generator(disc[-1])
    told = _levels(torch.autograd.grad(told_loss, disc, retain_graph=True), scale)
    judged = _levels(torch.autograd.grad(judged_loss, [*gen, *disc]), scale)
    gen_levels, disc_levels = _levels(gen), _levels(disc)
    found: dict[Cut, UsualFrames] = {}
    for cut in cuts:
        g, d = cut.gen(shapes), cut.disc(shapes)
        sent = {
            Exchange.GENERATE: gen_levels[g.head - 1],
            Exchange.DISCRIMINATE: disc_levels[d.head - 1],
            Exchange.DISCRIMINATOR_STEP: told[d.tail - 1],
            Exchange.JUDGE: disc_levels[d.head - 1],
            Exchange.JUDGE_GRADIENT: judged[len(gen) + d.tail - 1],
            Exchange.GENERATOR_STEP: judged[g.tail - 1],
        }
        found[cut] = [_frame(exchange, sent[exchange]) for exchange in Exchange]
    return found, float(disc[-1].detach().sigmoid().mean())


def _frame(exchange: Exchange, level: float) -> dict[str, Usual]:
    gradients = (Exchange.DISCRIMINATOR_STEP, Exchange.JUDGE_GRADIENT, Exchange.GENERATOR_STEP)
    usual = Usual(level, _GRADIENT_TOLERANCE if exchange in gradients else _ACTIVATION_TOLERANCE)
    both = exchange in (Exchange.DISCRIMINATE, Exchange.DISCRIMINATOR_STEP)
    return {"fake": usual, "real": usual} if both else {"fake": usual}


def _levels(tensors: Collection[Tensor], scale: float = 1.0) -> list[float]:
    return [scale * level(tensor) for tensor in tensors]
