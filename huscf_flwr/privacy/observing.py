"""What a server sees of a client: the frames of the first half of an iteration."""

from dataclasses import dataclass

from torch import Tensor

from huscf_flwr.data.batches import Batch
from huscf_flwr.procedure import advance
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.tensors import Tensors


@dataclass(frozen=True)
class Observed:
    """Tensors that a client sent, B rows each, as they are cut.

    Attributes
    ----------
    generator: what its generator's head makes of latent vectors and labels to generate.
    real: what its discriminator's head makes of real images.
    gradients: of the discriminator's loss on these, at what the server's segment made of them.
    """

    generator: Tensor
    real: Tensor
    gradients: Tensor


def observe(half: HeadsAndTails, segments: Segments, cut: Cut, batch: Batch) -> Observed:
    """Compute an iteration up to DISCRIMINATOR_STEP; no parameter changes."""
    steps, server = half.iteration(batch), segments.iteration({0: cut})

    def next_request(exchange: Exchange, request: Tensors) -> Tensors:
        answer = server.answer(exchange, {0: request})[0]
        # A copy: an answer is a leaf of the client's own graph.
        found = advance(steps, {name: tensor.clone() for name, tensor in answer.items()})
        assert found is not None
        return found

    generated = advance(steps)
    assert generated is not None
    judged = next_request(Exchange.GENERATE, generated)
    gradients = next_request(Exchange.DISCRIMINATE, judged)
    steps.close()
    half.abandon()
    return Observed(generated["fake"], judged["real"], gradients["real"])
