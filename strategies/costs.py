"""What clients compute and send: operations of an iteration, bytes of messages."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flwr.common import FitIns, FitRes

from huscf_flwr.nets import DISC, GEN
from huscf_flwr.planning.costs import NetCosts


class Passes(NamedTuple):
    """How often a batch passes through a net in an iteration.

    Attributes
    ----------
    forward: through all blocks that are held.
    inputs, weights: back, for the gradients of the blocks' inputs, and for those of their weights;
        each takes as many operations as the way forward.
    """

    forward: int
    inputs: int
    weights: int


ONE_GENERATOR: Mapping[str, Passes] = {GEN: Passes(1, 1, 1), DISC: Passes(3, 3, 2)}
"""Real and generated images are judged to learn, and the latter again for the generator."""
TWO_GENERATORS: Mapping[str, Passes] = {GEN: Passes(2, 2, 2), DISC: Passes(5, 5, 3)}


def iteration_flops(
    costs: NetCosts, blocks: Mapping[str, Sequence[int]], passes: Mapping[str, Passes]
) -> float:
    """Floating-point operations of an iteration of a client that holds these blocks.

    Parameters
    ----------
    costs: of all blocks, for one batch.
    blocks: indices, per net.
    passes: through each net.
    """
    found = 0.0
    for net, of_net in ((GEN, costs.gen), (DISC, costs.disc)):
        found += sum(passes[net]) * float(of_net.forward_flops[list(blocks[net])].sum())
    return found


def message_bytes(message: FitIns | FitRes) -> int:
    """Of the parameters' arrays, and of what is as large beside them."""
    others = message.config if isinstance(message, FitIns) else message.metrics
    large = sum(len(value) for value in others.values() if isinstance(value, bytes))
    return sum(map(len, message.parameters.tensors)) + large
