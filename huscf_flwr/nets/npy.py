"""Arrays as NumPy saves them, which is how Flower's messages carry them.

Of an array whose dtype and shape are known, the header is known, too: nobody has to write it anew,
or to parse what somebody else wrote.
"""

import functools
import io

import numpy as np
from flwr.common import NDArrays, Parameters, parameters_to_ndarrays
from torch import Tensor

_KIND = "numpy.ndarray"  # as Flower names them


def to_parameters(arrays: NDArrays) -> Parameters:
    """The bytes that Flower's `ndarrays_to_parameters` gives."""
    tensors = []
    for array in map(np.asarray, arrays):
        header = _header(array.dtype, array.shape)
        tensors.append(b"".join((header, np.ascontiguousarray(array).data)))
    return Parameters(tensors, _KIND)


def array_like(due: Tensor, raw: bytes) -> np.ndarray:
    """What was saved, read-only if it is like `due`, a tensor on the CPU.

    Raises
    ------
    Exception: whatever broken bytes make NumPy's reader raise.
    """
    dtype = due.numpy().dtype
    header = _header(dtype, tuple(due.shape))
    if raw.startswith(header) and len(raw) == len(header) + due.nbytes:
        return np.frombuffer(raw, dtype, offset=len(header)).reshape(due.shape)
    return parameters_to_ndarrays(Parameters([raw], _KIND))[0]


@functools.lru_cache(maxsize=4096)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()
