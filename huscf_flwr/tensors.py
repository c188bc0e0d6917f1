"""Named tensors that pass between a client and the server, and the check of those that come in."""

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
"""Tensors by name, of shape `(batch, *features)`."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by tensor name."""

LARGEST = 1e6
"""The largest magnitude of a value that a client may send. Far beyond what training leads to, and
far enough below float32's limit of 3e38 that the squares and sums of such values stay finite."""


class TensorError(ValueError):
    """Tensors that are not what was due. The message says what differs."""


def check_tensors(
    tensors: Tensors, expected: Shapes, dtype: torch.dtype, largest: float = LARGEST
) -> None:
    """Raise `TensorError` unless names, shapes, dtype are as expected, values as `check_values`.

    `largest` is the largest magnitude of a value.
    """
    if tensors.keys() != expected.keys():
        raise TensorError(f"tensors {sorted(tensors)} where {sorted(expected)} were due")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(expected[name]):
            raise TensorError(
                f'"{name}" has shape {tuple(tensor.shape)} where {tuple(expected[name])} was due'
            )
        if tensor.dtype != dtype:
            raise TensorError(f'"{name}" has dtype {tensor.dtype} where {dtype} was due')
        check_values(tensor, name, largest)


def check_values(tensor: Tensor, name: str, largest: float = LARGEST) -> None:
    """Raise `TensorError` unless all values are numbers, of the magnitude `largest` at most."""
    if not tensor.numel():
        return
    low, high = (end.item() for end in tensor.aminmax())  # both NaN if any value is
    if not -largest <= low <= high <= largest:
        raise TensorError(
            f'"{name}" has values from {low:g} to {high:g}: they must be between '
            f"{-largest:g} and {largest:g}"
        )
