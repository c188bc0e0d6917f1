"""What draws from torch's global generator: initial parameters of modules, and dropout."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.Lock()


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """The global generator begins with this seed, and goes on afterwards as if nothing had been.

    Threads take turns with it, or what they draw would not follow from their seeds.
    """
    with _turn, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
