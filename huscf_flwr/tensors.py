"""Named tensors that pass between a client and the server, and the check of those that come in."""

from collections.abc import Mapping
from itertools import islice

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


class Checked(dict[str, Tensor]):
    """Tensors whose values have been looked at once, and what was found.

    Attributes
    ----------
    norms: Euclidean norm of each sample, by name; not finite where a value is not.
    """

    def __init__(self, tensors: Tensors, norms: dict[str, list[float]] | None = None) -> None:
        """`norms` are taken now, unless they are known."""
        super().__init__(tensors)
        self.norms = norms or {
            name: _norms(tensor, samples=1).tolist() for name, tensor in tensors.items()
        }


def _norms(tensor: Tensor, samples: int) -> Tensor:
    """Of each sample; `samples` is how many dimensions number them."""
    values = tensor.detach().unsqueeze(-1)  # a copy of none, whatever their order in memory
    norms: Tensor = torch.linalg.vector_norm(values, dim=tuple(range(samples, values.dim())))
    return norms


def looked_at(*stacked: Tensors) -> list[list[Checked]]:
    """What is each client's of tensors that are stacked, `(clients, batch, *features)`.

    All norms come from where the tensors are at once: a GPU is waited for once, not again and
    again.

    Returns
    -------
    By client, what is its own of each of the `stacked`.
    """
    every = [_norms(tensor, samples=2) for tensors in stacked for tensor in tensors.values()]
    norms = [iter(row) for row in torch.cat(every, dim=1).tolist()]
    parts = [{name: t.detach().unbind() for name, t in tensors.items()} for tensors in stacked]
    return [
        [
            Checked(
                {name: rows[client] for name, rows in part.items()},
                {name: list(islice(own, len(rows[client]))) for name, rows in part.items()},
            )
            for part in parts
        ]
        for client, own in enumerate(norms)
    ]


def check_tensors(
    tensors: Tensors, expected: Shapes, dtype: torch.dtype, largest: float = LARGEST
) -> Checked:
    """Raise `TensorError` unless names, shapes, dtype are as expected, values as `check_values`.

    `largest` is the largest magnitude of a value. What is `Checked` is not looked at again.
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
    checked = tensors if isinstance(tensors, Checked) else Checked(tensors)
    for name, norms in checked.norms.items():
        if not all(norm <= largest for norm in norms):  # or no value of it can be larger
            check_values(tensors[name], name, largest)
    return checked


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
