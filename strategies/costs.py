"""What clients compute and what crosses: operations of an iteration, bytes of messages."""

from collections.abc import Mapping, Sequence

from flwr.common import FitIns, FitRes

from huscf_flwr.nets import DISC, GEN
from huscf_flwr.planning.costs import NetCosts


def iteration_flops(
    costs: NetCosts, blocks: Mapping[str, Sequence[int]], passes: Mapping[str, int]
) -> float:
    """Floating-point operations of an iteration of a client that holds these blocks.

    Parameters
    ----------
    costs: of all blocks, for one batch.
    blocks: indices, per net.
    passes: through each net, forward and backward alike.
    """
    found = 0.0
    for net, of_net in ((GEN, costs.gen), (DISC, costs.disc)):
        by_block = of_net.forward_flops + of_net.backward_flops
        found += passes[net] * float(by_block[list(map(int, blocks[net]))].sum())
    return found


def message_bytes(message: FitIns | FitRes) -> int:
    """Of the parameters, and of what is as large beside them."""
    others = message.config if isinstance(message, FitIns) else message.metrics
    large = sum(len(value) for value in others.values() if isinstance(value, bytes))
    return sum(map(len, message.parameters.tensors)) + large
