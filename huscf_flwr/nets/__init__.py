"""Conditional GANs that can be cut: lists of blocks, their state, losses, optimisers.

`blocks` says what a net is and names them, `cgan` is the paper's, `resize` another, of the same
`layers`; `state` are parameters by name, `unsplit` trains a net in one place, `generator` is a
trained one on its own; `moulds` makes blocks again and again, and `npy` is for arrays in Flower's
messages.
"""

from huscf_flwr.nets.blocks import (
    DISC,
    GEN,
    Blocks,
    NetShapes,
    NetSpec,
    build_blocks,
    each_output,
    is_registered,
    net_shapes,
    register_net,
    run_blocks,
    unfilled_blocks,
    whole_net,
)
from huscf_flwr.nets.cgan import cgan
from huscf_flwr.nets.resize import resize
from huscf_flwr.nets.state import (
    PartialGAN,
    State,
    from_arrays,
    initial_state,
    select_blocks,
    state_names,
    to_arrays,
)

__all__ = [
    "DISC",
    "GEN",
    "Blocks",
    "NetShapes",
    "NetSpec",
    "PartialGAN",
    "State",
    "build_blocks",
    "cgan",
    "each_output",
    "from_arrays",
    "initial_state",
    "is_registered",
    "net_shapes",
    "register_net",
    "resize",
    "run_blocks",
    "select_blocks",
    "state_names",
    "to_arrays",
    "unfilled_blocks",
    "whole_net",
]
