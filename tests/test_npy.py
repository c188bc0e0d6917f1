"""Arrays in messages are those of Flower, byte for byte."""

import numpy as np
import pytest
import torch
from flwr.common import ndarrays_to_parameters

from huscf_flwr.nets.npy import array_like, to_parameters

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.arange(24, dtype=np.float64).reshape(4, 6).T,
    np.array(7, dtype=np.int64),
    np.zeros((0, 3), dtype=np.float32),
    np.array([True, False]),
]


def test_they_are_written_as_by_flower_and_read_back() -> None:
    contiguous = [np.ascontiguousarray(array).reshape(array.shape) for array in ARRAYS]
    found = to_parameters(ARRAYS)
    assert found == ndarrays_to_parameters(contiguous)
    for array, raw in zip(ARRAYS, found.tensors, strict=True):
        back = array_like(torch.from_numpy(array.copy()), raw)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tolist() == array.tolist()
        assert not back.flags.writeable


def test_others_are_read_as_they_are() -> None:
    """In NumPy's other order, of another shape or dtype; the one who asks sees the difference."""
    due = torch.zeros(4, 6, dtype=torch.float64)
    (raw,) = ndarrays_to_parameters([np.asfortranarray(ARRAYS[1])]).tensors
    assert array_like(due, raw).tolist() == ARRAYS[1].tolist()
    (raw,) = to_parameters([ARRAYS[0]]).tensors
    assert array_like(due, raw).shape == (2, 3, 4)


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[8:]])
def test_broken_bytes_are_no_array(spoil: object) -> None:
    (raw,) = to_parameters([ARRAYS[0]]).tensors
    with pytest.raises(Exception):  # noqa: B017 - whatever NumPy's reader says
        array_like(torch.from_numpy(ARRAYS[0]), spoil(raw))  # type: ignore[operator]
