"""Blocks made again and again: cast from moulds, which takes a tenth of building the nets."""

import functools
import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from huscf_flwr.nets.blocks import DISC, GEN, Builder, NetSpec, builder_of, unfilled_blocks

Place = tuple[str, int]
"""Of a block: its net, `gen` or `disc`, and its index there."""


def unfilled_at(spec: NetSpec, places: Iterable[Place]) -> dict[Place, nn.Module]:
    """Blocks as `unfilled_blocks` gives them, of these places only.

    Raises
    ------
    UserError: as `unfilled_blocks`.
    """
    if (moulds := _moulds(spec, builder_of(spec))) is not None:
        return moulds.cast(places)
    blocks = _built(spec)
    return {place: blocks[place] for place in places}


class _Moulds:
    """Blocks without the values of their state, as pickle writes them down."""

    def __init__(self, blocks: Mapping[Place, nn.Module]) -> None:
        """Raises whatever pickle does of what cannot be pickled, a function without a name say."""
        states = [block.state_dict(keep_vars=True) for block in blocks.values()]
        values = {id(value): value for state in states for value in state.values()}
        self._forms = [_Form.of(value) for value in values.values()]
        numbers = {key: number for number, key in enumerate(values)}
        self._written: dict[Place, bytes] = {}
        for place, block in blocks.items():
            file = io.BytesIO()
            _Pickler(file, numbers).dump(block)
            self._written[place] = file.getvalue()

    def cast(self, places: Iterable[Place]) -> dict[Place, nn.Module]:
        """New blocks; parameters that they share in the net, they share."""
        made: dict[int, Tensor] = {}
        return {
            place: _Unpickler(io.BytesIO(self._written[place]), self._forms, made).load()
            for place in places
        }


class _Form(NamedTuple):
    """What there is to know of a parameter or buffer but its values."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    requires_grad: bool

    @classmethod
    def of(cls, value: Tensor) -> Self:
        is_parameter = isinstance(value, nn.Parameter)
        return cls(value.shape, value.stride(), value.dtype, is_parameter, value.requires_grad)

    def unfilled(self) -> Tensor:
        """A new one."""
        value = torch.empty_strided(self.shape, self.stride, dtype=self.dtype)
        return nn.Parameter(value, self.requires_grad) if self.is_parameter else value


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, numbers: Mapping[int, int]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._numbers = numbers

    def persistent_id(self, obj: Any) -> int | None:
        return self._numbers.get(id(obj)) if isinstance(obj, Tensor) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, forms: list[_Form], made: dict[int, Tensor]) -> None:
        super().__init__(file)
        self._forms = forms
        self._made = made

    def persistent_load(self, pid: int) -> Tensor:
        if pid not in self._made:
            self._made[pid] = self._forms[pid].unfilled()
        return self._made[pid]


@functools.lru_cache(maxsize=32)
def _moulds(spec: NetSpec, builder: Builder) -> _Moulds | None:
    """None where there can be none; of what is registered under the name now, not once."""
    blocks = _built(spec)
    try:
        moulds = _Moulds(blocks)
        moulds.cast(blocks)
    except Exception:  # pickle raises whatever an object's own methods do
        return None
    return moulds


def _built(spec: NetSpec) -> dict[Place, nn.Module]:
    blocks = unfilled_blocks(spec)
    return {
        (net, index): block
        for net, of_net in ((GEN, blocks.generator), (DISC, blocks.discriminator))
        for index, block in enumerate(of_net)
    }
