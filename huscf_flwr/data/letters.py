"""The built-in domains `letters` and `coloured-letters`: capitals A to J in many fonts.

They are rendered here, always the same.
"""

from pathlib import Path

import numpy as np

LETTERS = "ABCDEFGHIJ"
"""By label."""
_FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-BoldOblique", "-Oblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-BoldOblique", "-Oblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-BoldItalic", "-Italic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "BolIta", "Italic")),
    *("cmb10", "cmr10", "cmss10", "cmtt10"),
)

_LEAST_CONTRAST = 80  # mean over the colours


def render_letters(size: int, count: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """White capitals on black, in a random font, size, place and rotation up to 12 degrees.

    Parameters
    ----------
    size: height and width of an image, in pixels.
    count: how many; each letter gets an equal share.
    seed: of everything random here.

    Returns
    -------
    images, uint8 (count, size, size), and labels, int64 (count,): 0 for A, 1 for B, ...
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(LETTERS))
    canvas = 96  # drawn large, then reduced: smooth edges at any size
    images = np.empty((count, size, size), dtype=np.uint8)
    for i, label in enumerate(labels):
        points = int(random.integers(76, 100))
        font = ImageFont.truetype(str(folder / f"{random.choice(_FONTS)}.ttf"), points)
        drawn = Image.new("L", (canvas, canvas))
        centre = tuple(canvas / 2 + random.uniform(-5, 5, 2))
        ImageDraw.Draw(drawn).text(centre, LETTERS[label], fill=255, font=font, anchor="mm")
        drawn = drawn.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR)
        images[i] = np.asarray(drawn.resize((size, size), Image.Resampling.BOX))
    return images, labels.astype(np.int64)


def render_coloured_letters(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same letters, each in a colour on another one, which say nothing of the class.

    Returns
    -------
    images, uint8 (2000, size, size, 3), and labels as `render_letters`.
    """
    shapes, labels = render_letters(size)
    random = np.random.default_rng(0)
    ink, ground = random.uniform(0, 255, (2, len(labels), 1, 1, 3))
    # Where they are too much alike, the ink is what differs most from the ground.
    alike = np.abs(ink - ground).mean(axis=-1, keepdims=True) < _LEAST_CONTRAST
    ink = np.where(alike, np.where(ground < 128, 255, 0), ink)
    share = shapes[..., None] / 255
    return (share * ink + (1 - share) * ground).round().astype(np.uint8), labels
