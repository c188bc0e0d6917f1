"""Where a client's random numbers come from: the run's seed, or a secret of its own.

In simulation they follow from the seed, so that runs repeat. A device's follow from a secret that
it drew once and tells nobody: who knows the run's seed, as the server does, learns nothing of its
order of images, its latent vectors or its noise.
"""

import enum
import hmac
from typing import Protocol

import numpy as np


class Purpose(enum.IntEnum):
    """What numbers are drawn for. Those of one purpose tell nothing of those of another."""

    ORDER = 0
    """In which order images come, for each epoch."""
    BATCH = 1
    """Latent vectors and labels to generate, for each batch."""
    PROBE = 2
    """Which images are probed."""
    FOR_GOOD = 3
    """The noise of each image and label, see `LocalNoise`."""
    FAKES = 4
    """The noise of generated images, for each batch."""


class Draws(Protocol):
    """Random numbers of one client."""

    def __call__(self, purpose: Purpose, *index: int) -> np.random.Generator:
        """A generator that is the same whenever it is asked for."""
        ...


def seeded(seed: int, client: int) -> Draws:
    """Draws that everybody knows who knows the seed."""
    return lambda purpose, *index: np.random.default_rng((seed, client, purpose, *index))


def secretly(secret: bytes, *of: object) -> Draws:
    """Draws that nobody can tell without the secret, not even from others of these draws.

    Each is seeded by a keyed hash of its own, since numpy's generators are not made to hide
    their state from who sees what they gave.

    Parameters
    ----------
    secret: at least 16 random bytes.
    of: what tells these draws from others with this secret: the run, the client.
    """

    def draw(purpose: Purpose, *index: int) -> np.random.Generator:
        message = "/".join(map(str, (*of, int(purpose), *index)))
        digest = hmac.digest(secret, message.encode(), "sha256")
        return np.random.default_rng(int.from_bytes(digest))

    return draw
