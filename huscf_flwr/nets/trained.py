"""Blocks that are trained, with their optimisers, as one state: to be saved, or sent."""

from typing import Protocol

from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.nets.state import State

_OPTIMISER = "optimiser:"  # names in such a state


class TrainedBlocks(Protocol):
    """Blocks and their optimisers; beside parameters, a state may hold more."""

    @property
    def optimisers(self) -> Optimisers: ...
    def state(self) -> State: ...
    def load(self, state: State) -> None: ...


def whole_state(blocks: TrainedBlocks) -> State:
    """A copy of all of it, moments included, on the CPU."""
    moments = blocks.optimisers.state()
    return blocks.state() | {f"{_OPTIMISER}{name}": v for name, v in moments.items()}


def load_whole(blocks: TrainedBlocks, state: State) -> None:
    """Take over what `whole_state` gave.

    Raises
    ------
    KeyError, RuntimeError, ValueError: it does not fit.
    """
    blocks.load({n: v for n, v in state.items() if not n.startswith(_OPTIMISER)})
    moments = {n.removeprefix(_OPTIMISER): v for n, v in state.items() if n.startswith(_OPTIMISER)}
    blocks.optimisers.load(moments)
