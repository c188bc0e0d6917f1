"""What is usual of what clients send, for the guard: that of untrained nets, by cut."""

import torch

from huscf_flwr.data.batches import Batch
from huscf_flwr.defences.guard import Usual, UsualFrames
from huscf_flwr.nets import NetSpec, initial_state, net_shapes
from huscf_flwr.procedure import advance
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import all_segments

_GRADIENTS = {
    Exchange.DISCRIMINATOR_STEP,
    Exchange.JUDGE_GRADIENT,
    Exchange.GENERATOR_STEP,
}
_ACTIVATION_TOLERANCE = 2.0
"""Those of honest clients are within 2% of each other's: normed layers made them."""

_GRADIENT_TOLERANCE = 5.0
"""Those of honest clients of three domains, or of Dirichlet 0.1, were up to 4.2 times the median;
they depend on how well the discriminator tells the domain's images from generated ones."""


_LEAST = 1e-12


def usual_frames(spec: NetSpec, cut: Cut, *, batch_size: int, seed: int) -> UsualFrames:
    """Run one iteration of untrained nets on noise, and note what a client sends in it."""
    shapes, state = net_shapes(spec), initial_state(spec, seed)
    heads_and_tails = HeadsAndTails(
        spec, shapes, cut, state, learning_rate=0.0, batch_size=batch_size
    )
    segments = all_segments(spec, state, batch_size=batch_size, learning_rate=0.0)
    server = segments.iteration({0: cut})
    steps = heads_and_tails.iteration(_noise(spec, shapes.latent_size, batch_size, seed))
    request, found = advance(steps), []
    for exchange in Exchange:
        assert request is not None
        gradient = exchange in _GRADIENTS
        tolerance = _GRADIENT_TOLERANCE if gradient else _ACTIVATION_TOLERANCE
        found.append(
            {
                name: Usual(float(t.square().mean().sqrt()), tolerance)
                for name, t in request.items()
            }
        )
        answer = server.answer(exchange, {0: request})[0]
        request = advance(steps, {name: tensor.clone() for name, tensor in answer.items()})
    return found


def _noise(spec: NetSpec, latent_size: int, batch_size: int, seed: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    shape = (batch_size, spec.channels, spec.image_size, spec.image_size)
    images = torch.rand(shape, generator=random) * 2 - 1
    latent = torch.randn((batch_size, latent_size), generator=random)
    labels = torch.randint(0, spec.num_classes, (2, batch_size), generator=random)
    return Batch(images, labels[0], latent, labels[1])
