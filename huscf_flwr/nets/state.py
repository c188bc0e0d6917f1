"""Parameters and buffers of blocks by name, and modules made of them."""

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from huscf_flwr.nets.blocks import (
    BFLOAT16,
    DISC,
    GEN,
    Blocks,
    NetSpec,
    build_blocks,
    in_bfloat16,
    unfilled_blocks,
)
from huscf_flwr.nets.moulds import unfilled_at
from huscf_flwr.system.seeding import torch_seeded

State = dict[str, Tensor]
"""Parameters and buffers by name: `<gen|disc>.<block>.<name inside the block>`."""


BlockIndices = Mapping[str, Iterable[int]]
"""Indices of some blocks of both nets, by `gen` and `disc`."""


class PartialGAN(nn.Module):
    """Some of the blocks of a net: a client's ends, the server's segments, or all of it.

    Blocks keep their index, so that parameters have the same name wherever they live.
    """

    def __init__(
        self,
        spec: NetSpec,
        state: State,
        *,
        gen: Iterable[int],
        disc: Iterable[int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the blocks with the indices `gen` and `disc`, and no others, from `state`.

        Raises
        ------
        RuntimeError: `state` lacks a name of these blocks, or has one in another shape.
        """
        super().__init__()
        places = [(GEN, i) for i in sorted(gen)] + [(DISC, i) for i in sorted(disc)]
        self.gen, self.disc = nn.ModuleDict(), nn.ModuleDict()
        for (net, index), block in unfilled_at(spec, places).items():
            (self.gen if net == GEN else self.disc)[str(index)] = block
        here = self.state_dict()
        own = {name: state[name] for name in here if name in state}
        if _floating(own) != _floating(here):
            for dtype in _floating(own):
                self.to(dtype)
        if torch.device(device).type != "cpu":
            self.to(device)
        for parameter in self.parameters():
            if parameter.dim() == 4:  # then convolutions are faster: an iteration by a seventh
                parameter.data = parameter.contiguous(memory_format=torch.channels_last)
        self.load_state_dict(own)
        if spec.precision == BFLOAT16:
            for block in (*self.gen.values(), *self.disc.values()):
                in_bfloat16(block)

    def load(self, state: State) -> None:
        """Replace parameters and buffers by those of the same name."""
        self.load_state_dict({name: state[name] for name in self.state_dict()})


def _floating(state: State) -> set[torch.dtype]:
    return {value.dtype for value in state.values() if value.is_floating_point()}


def initial_state(spec: NetSpec, seed: int, dtype: torch.dtype = torch.float32) -> State:
    """All parameters and buffers of the whole net, freshly initialised from `seed`."""
    with torch_seeded(seed):
        return _whole(build_blocks(spec)).to(dtype).state_dict()


def _whole(blocks: Blocks) -> nn.Module:
    whole = nn.Module()
    whole.gen = nn.ModuleDict({str(i): b for i, b in enumerate(blocks.generator)})
    whole.disc = nn.ModuleDict({str(i): b for i, b in enumerate(blocks.discriminator)})
    return whole


def state_names(spec: NetSpec, blocks: BlockIndices) -> list[str]:
    """Names of the parameters and buffers of these blocks, sorted."""
    wanted = _of_blocks(blocks)
    return [name for name in _names(spec) if _block(name) in wanted]


@functools.lru_cache(maxsize=32)
def _names(spec: NetSpec) -> tuple[str, ...]:
    return tuple(sorted(_whole(unfilled_blocks(spec)).state_dict()))


def select_blocks(state: State, blocks: BlockIndices) -> State:
    """The part of a state that belongs to these blocks, sorted by name."""
    wanted = _of_blocks(blocks)
    return {name: state[name] for name in sorted(state) if _block(name) in wanted}


def _of_blocks(blocks: BlockIndices) -> set[tuple[str, ...]]:
    return {(net, str(index)) for net, indices in blocks.items() for index in indices}


def _block(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[:2])


def to_arrays(state: State) -> list[np.ndarray]:
    """The values of a state in the order of its names: how Flower's messages carry it."""
    return [state[name].detach().cpu().contiguous().numpy() for name in sorted(state)]


def from_arrays(names: Iterable[str], arrays: Sequence[np.ndarray]) -> State:
    """A state with these names, from what `to_arrays` gave; raises ValueError if counts differ."""
    pairs = zip(sorted(names), arrays, strict=True)
    # A copy: arrays out of a message are read-only, and training writes in place.
    return {name: torch.from_numpy(np.array(array)) for name, array in pairs}
