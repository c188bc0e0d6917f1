"""Blocks made again and again: cast from a mould, which takes a tenth of building a net."""

import functools
import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from huscf_flwr.nets.blocks import DISC, GEN, NetSpec, unfilled_blocks


def unfilled_block(spec: NetSpec, net: str, index: int) -> nn.Module:
    """A block of `unfilled_blocks`; the nets by `gen` and `disc`.

    Raises
    ------
    UserError: as `unfilled_blocks`.
    """
    mould = _moulds(spec)[net][index]
    if mould is not None:
        return mould.cast()
    blocks = unfilled_blocks(spec)
    return (blocks.generator if net == GEN else blocks.discriminator)[index]


class _Mould:
    """A block without the values of its state, as pickle writes it down."""

    def __init__(self, block: nn.Module) -> None:
        """Raises whatever pickle does of what cannot be pickled, a function without a name say."""
        self._state = block.state_dict(keep_vars=True)
        written = io.BytesIO()
        _Pickler(written, {id(value): name for name, value in self._state.items()}).dump(block)
        self._written = written.getvalue()

    def cast(self) -> nn.Module:
        """A new block."""
        found: nn.Module = _Unpickler(io.BytesIO(self._written), self._state).load()
        return found


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: dict[int, str]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = names

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj)) if isinstance(obj, Tensor) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, state: dict[str, Tensor]) -> None:
        super().__init__(file)
        self._state = state
        self._made: dict[str, Tensor] = {}

    def persistent_load(self, pid: str) -> Tensor:
        if pid not in self._made:  # what is tied stays so
            like = self._state[pid]
            value = torch.empty_like(like, requires_grad=False)
            known = isinstance(like, nn.Parameter)
            self._made[pid] = nn.Parameter(value, like.requires_grad) if known else value
        return self._made[pid]


@functools.lru_cache(maxsize=32)
def _moulds(spec: NetSpec) -> dict[str, list[_Mould | None]]:
    blocks = unfilled_blocks(spec)
    return {
        net: [_mould_of(block) for block in of_net]
        for net, of_net in ((GEN, blocks.generator), (DISC, blocks.discriminator))
    }


def _mould_of(block: nn.Module) -> _Mould | None:
    try:
        return _Mould(block)
    except Exception:  # pickle raises whatever an object's own methods do
        return None
