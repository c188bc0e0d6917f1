"""Pictures of many images side by side: one column per class, of generated and of real ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from huscf_flwr.data.batches import LabelledImages, to_uint8, to_unit
from huscf_flwr.nets.generator import Generator

GRID_ROWS = 8
"""Images of each class in the grids of a run."""

_STRIP = 12  # images in a strip
_VISIBLE = 48  # pixels that an image has at least


def save_grid(generator: Generator, path: Path) -> None:
    """A picture of generated images, one column per class, always of the same latent vectors."""
    classes = generator.spec.num_classes
    images, _ = generator.sample(GRID_ROWS * classes, seed=0)
    save_images(images, path, columns=classes)


def by_class(data: LabelledImages, classes: int, rows: int) -> Tensor:
    """The first images of each class, in [-1, 1], in the order of `save_grid`.

    Where there are fewer than `rows` of a class, blank ones follow.
    """
    grid = torch.full((rows, classes, *data.images.shape[1:]), -1.0)
    for label in range(classes):
        found = to_unit(data.images[data.labels == label][:rows])
        grid[: len(found), label] = found
    return grid.flatten(0, 1)


def save_images(images: Tensor, path: Path, columns: int) -> None:
    """Images (n, C, H, W) in [-1, 1], C 1 or 3, row by row as a PNG, enlarged to be seen.

    Raises
    ------
    OSError: the file cannot be written.
    """
    from PIL import Image
    from torchvision.utils import make_grid

    scale = max(1, _VISIBLE // images.shape[-1])
    enlarged = to_uint8(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, nrow=columns, padding=4, pad_value=128)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path, format="PNG")


def save_strips(rows: Sequence[Tensor], path: Path) -> None:
    """A picture with the first images of each of `rows`, (n, C, H, W), below each other.

    Raises
    ------
    OSError: the file cannot be written.
    """
    columns = min(_STRIP, len(rows[0]))
    save_images(torch.cat([row[:columns] for row in rows]), path, columns)
