"""The built-in domain `textures`: ten kinds of patterns, rendered here, always the same."""

from collections.abc import Callable
from math import cos, pi, radians, sin

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""Which points (x, y) of the unit square, (m, m) each, are bright: bool (m, m)."""
_OVERSAMPLING = 4
_PHASE = 0.15  # of a period, either way: with any phase, small nets learn noise


def render_textures(size: int, count: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Patterns in two greys; scale, phase, contrast and direction vary a little.

    Parameters
    ----------
    size: height and width of an image, in pixels.
    count: how many; each texture gets an equal share.
    seed: of everything random here.

    Returns
    -------
    images, uint8 (count, size, size), and labels, int64 (count,): positions in `TEXTURES`.
    """
    random = np.random.default_rng(seed)
    patterns = list(TEXTURES.values())
    labels = random.permutation(np.arange(count) % len(patterns))
    # Drawn finer, then reduced: smooth edges at any size.
    fine = (np.arange(size * _OVERSAMPLING) + 0.5) / (size * _OVERSAMPLING)
    x, y = np.meshgrid(fine - 0.5, fine - 0.5)
    images = np.empty((count, size, size), dtype=np.uint8)
    for i, label in enumerate(labels):
        turn = radians(random.uniform(-5, 5))
        bright = patterns[label](
            x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn), random
        )
        blocks = bright.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING)
        dark_grey, bright_grey = random.uniform(0, 70), random.uniform(160, 255)
        images[i] = dark_grey + (bright_grey - dark_grey) * blocks.mean(axis=(1, 3))
    return images, labels.astype(np.int64)


def _stripes(degrees: float) -> Pattern:
    across_x, across_y = cos(radians(degrees)), sin(radians(degrees))

    def pattern(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return _half(_cycles(x * across_x + y * across_y, random, 2.2, 2.8))

    return pattern


def _checks(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    scale = random.uniform(1.3, 1.7)
    across, down = (_half(_cycles(along, random, scale, scale)) for along in (x, y))
    return np.asarray(across != down)


def _dots(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    scale = random.uniform(2.3, 2.8)
    across, down = _cycles(x, random, scale, scale) % 1, _cycles(y, random, scale, scale) % 1
    return np.asarray(np.hypot(across - 0.5, down - 0.5) < 0.32)


def _rings(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return _half(_cycles(np.hypot(*_from_centre(x, y, random)), random, 2.6, 3.2))


def _rays(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    across, down = _from_centre(x, y, random)
    turns = np.arctan2(down, across) / (2 * pi)
    return _half(turns * 6 + random.uniform(-_PHASE, _PHASE))


def _bricks(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    scale = random.uniform(2.3, 2.8)
    rows = _cycles(y, random, scale, scale)
    columns = _cycles(x, random, scale / 2, scale / 2) + np.floor(rows) / 2
    return np.asarray((rows % 1 > 0.25) & (columns % 1 > 0.125))


def _waves(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    bend = 0.12 * np.sin(2 * pi * _cycles(x, random, 1.2, 1.5))
    return _half(_cycles(y + bend, random, 2.0, 2.4))


def _cycles(
    place: np.ndarray, random: np.random.Generator, fewest: float, most: float
) -> np.ndarray:
    """Periods passed at a place, `fewest` to `most` per image, from about the image's middle."""
    return place * random.uniform(fewest, most) + random.uniform(-_PHASE, _PHASE)


def _half(cycles: np.ndarray) -> np.ndarray:
    """The first half of every period."""
    return np.asarray(cycles % 1 < 0.5)


def _from_centre(
    x: np.ndarray, y: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    across, down = random.uniform(-0.05, 0.05, 2)
    return x - across, y - down


TEXTURES: dict[str, Pattern] = {
    "vertical stripes": _stripes(0),
    "horizontal stripes": _stripes(90),
    "rising stripes": _stripes(45),
    "falling stripes": _stripes(-45),
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "rays": _rays,
    "bricks": _bricks,
    "waves": _waves,
}
