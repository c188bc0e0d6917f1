"""How this process uses processor and memory. Import it before torch: its settings count then.

Threads that take turns (clients and runner in one process, or clients and server on one machine)
lose time in three ways: OpenMP workers spin long after their work is done, on a core that another
thread needs; but where several threads compute in parallel, each with workers of its own, these
hardly spin at all and have to be woken for every operation; and glibc hands freed activations back
to the system, which zeroes the same pages again in the next iteration. On two cores all together
cost a third of the speed. And Python looks for garbage among all objects whenever there are a
quarter more of them: nets of a thousand clients are a million, all of them in use.
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from huscf_flwr.errors import UserError
from huscf_flwr.system.machine import cores_here

T = TypeVar("T")

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # where the workers are no more than the cores
os.environ.setdefault("OMP_WAIT_POLICY", "active")  # a thousand where they are more, not a hundred


def settle_memory() -> None:
    """Let this process look for garbage seldom, and reuse large freed blocks, where it has glibc,
    instead of returning them."""
    gc.set_threshold(50_000, 10, 10)
    if sys.platform == "linux":
        trim_threshold, mmap_threshold, one_gib = -1, -3, 2**30
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(trim_threshold, one_gib)
            mallopt(mmap_threshold, one_gib)


def cores() -> int:
    """Threads worth computing with: what OMP_NUM_THREADS says, or the cores we may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return cores_here()


def use_threads(count: int) -> None:
    """Let torch compute with `count` threads when called from the calling thread.

    OpenMP keeps this number per thread, and torch sets it from a global at a thread's first
    operation; asking for it makes that happen now, while the global is ours.
    """
    import torch

    torch.set_num_threads(count)
    torch.get_num_threads()


def side_by_side(tasks: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """What tasks return that compute at the same time, with so many threads all together.

    Several with a thread each are faster than one after the other with all threads. Each has its
    share of them; so has numpy, whose threads are all tasks'. The caller computes with as many as
    before afterwards.
    """
    import torch
    from threadpoolctl import threadpool_limits

    own = torch.get_num_threads()
    at_a_time = max(1, min(len(tasks), threads))
    share = max(1, threads // at_a_time)
    pool = ThreadPoolExecutor(at_a_time, "task", use_threads, (share,))
    try:
        with threadpool_limits(share, "blas"):
            return [future.result() for future in [pool.submit(task) for task in tasks]]
    finally:
        pool.shutdown(cancel_futures=True)
        use_threads(own)


def torch_device(device: str) -> str:
    """What the run key `device` means on this machine; raises `UserError` if it is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use auto or cpu")
    return device


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
