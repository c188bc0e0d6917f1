"""What the blocks of a net cost: operations to compute and bytes to send, read off the net.

Nothing is computed and no weights are allocated: the blocks run on meta tensors, under torch's
counter of floating-point operations.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from huscf_flwr.nets import NetSpec, build_blocks, net_shapes
from huscf_flwr.wire.codings import EXACT, Coding

GEN_PASSES, DISC_PASSES = 1, 3
"""Passes of an iteration through each net, forward and backward alike: fake and real images are
judged for the discriminator's step, and fake ones again for the generator's."""
PASSES = 2 * (GEN_PASSES + DISC_PASSES)
"""All passes of an iteration, forward and backward."""


@dataclass(frozen=True, eq=False)
class BlockCosts:
    """The costs of one net's L blocks for one batch.

    Attributes
    ----------
    forward_flops: (L,) floating-point operations of a forward pass; a multiply-add is two, and
        only convolutions and linear layers count.
    output_bytes: (L,) size of each block's output, and of the gradient there.
    parameters: (L,) how many each block has.
    """

    forward_flops: np.ndarray
    output_bytes: np.ndarray
    parameters: np.ndarray

    @property
    def backward_flops(self) -> np.ndarray:
        """(L,) operations of a backward pass: one product for the inputs, one for the weights."""
        return 2 * self.forward_flops

    @property
    def pass_flops(self) -> float:
        """Operations of a pass through all blocks, forward and backward."""
        return float((self.forward_flops + self.backward_flops).sum())

    def __len__(self) -> int:
        return len(self.forward_flops)


@dataclass(frozen=True, eq=False)
class NetCosts:
    """The costs of a conditional GAN for one batch."""

    gen: BlockCosts
    disc: BlockCosts

    @property
    def iteration_flops(self) -> float:
        """Operations of a whole training iteration of one batch."""
        return sum(passes * costs.pass_flops for costs, passes in self.with_passes())

    def with_passes(self) -> tuple[tuple[BlockCosts, int], tuple[BlockCosts, int]]:
        """Each net with the passes an iteration makes through it, forward and backward alike."""
        return (self.gen, GEN_PASSES), (self.disc, DISC_PASSES)


@functools.lru_cache(maxsize=32)
def net_costs(spec: NetSpec, batch_size: int, coding: Coding = EXACT) -> NetCosts:
    """The costs of all blocks of any registered net, for `batch_size` float32 samples.

    Bytes are those of frames that are written in `coding`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, since it is heavy

    shapes = net_shapes(spec)
    with torch.device("meta"), torch.no_grad():
        blocks = build_blocks(spec)
        labels = torch.zeros(batch_size, dtype=torch.long)

        def costs(net: list[nn.Module], first: tuple[int, ...]) -> BlockCosts:
            flops, sizes = [], []
            value: Tensor = torch.zeros(batch_size, *first)
            for index, block in enumerate(net):
                with FlopCounterMode(display=False) as counter:
                    value = block(value, labels) if index == 0 else block(value)
                flops.append(counter.get_total_flops())
                sizes.append(coding.size(value.shape, torch.float32))
            held = [sum(p.numel() for p in block.parameters()) for block in net]
            return BlockCosts(
                np.array(flops, dtype=float), np.array(sizes, dtype=float), np.array(held)
            )

        image = (spec.channels, spec.image_size, spec.image_size)
        return NetCosts(
            costs(blocks.generator, (shapes.latent_size,)), costs(blocks.discriminator, image)
        )
