"""Pictures of many images side by side: one column per class, of generated and of real ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from huscf_flwr.data.batches import LabelledImages, to_uint8, to_unit
from huscf_flwr.nets.generator import Generator

if TYPE_CHECKING:
    from PIL.Image import Image

GRID_ROWS = 8
"""Images of each class in the grids of a run."""

_STRIP = 12  # images in a strip
_VISIBLE = 48  # pixels that an image has at least
_PADDING = 4  # pixels between images
_BETWEEN = 128  # grey there
_LETTER = 14  # pixels that a name is high
_LONGEST = 24  # characters of a name


def save_grid(generator: Generator, path: Path, names: Sequence[str]) -> None:
    """A picture of generated images, one column per class, always of the same latent vectors."""
    images, _ = generator.sample(GRID_ROWS * generator.spec.num_classes, seed=0)
    save_images(images, path, len(names), names)


def by_class(data: LabelledImages, classes: int, rows: int) -> Tensor:
    """The first images of each class, in [-1, 1], in the order of `save_grid`.

    Where there are fewer than `rows` of a class, blank ones follow.
    """
    grid = torch.full((rows, classes, *data.images.shape[1:]), -1.0)
    for label in range(classes):
        found = to_unit(data.images[data.labels == label][:rows])
        grid[: len(found), label] = found
    return grid.flatten(0, 1)


def save_images(images: Tensor, path: Path, columns: int, names: Sequence[str] = ()) -> None:
    """Images (n, C, H, W) in [-1, 1], C 1 or 3, row by row as a PNG, enlarged to be seen.

    Above the columns are their `names`, if they have some.

    Raises
    ------
    OSError: the file cannot be written.
    """
    from PIL import Image
    from torchvision.utils import make_grid

    scale = max(1, _VISIBLE // images.shape[-1])
    enlarged = to_uint8(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, nrow=columns, padding=_PADDING, pad_value=_BETWEEN)
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    if names:
        picture = _headed(picture, names, enlarged.shape[3] + _PADDING)
    picture.save(path, format="PNG")


def _headed(picture: "Image", names: Sequence[str], width: int) -> "Image":
    """With a name above each column, so many pixels wide; upright, where one is too long."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(file), _LETTER)
    shown = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name in names]
    longest = round(max(map(font.getlength, shown)))
    room, line = width - _PADDING, _LETTER + 2 * _PADDING
    upright = longest > room
    label_size = (longest + 2 * _PADDING if upright else room, line)
    height = label_size[0] if upright else line
    out = Image.new("RGB", (picture.width, height + picture.height), (_BETWEEN,) * 3)
    out.paste(picture, (0, height))
    for column, name in enumerate(shown):
        label = Image.new("RGB", label_size, (_BETWEEN,) * 3)
        at, anchor = ((_PADDING, line / 2), "lm") if upright else ((room / 2, line / 2), "mm")
        ImageDraw.Draw(label).text(at, name, "white", font, anchor)
        if upright:
            label = label.rotate(90, expand=True)
        out.paste(label, (_PADDING + column * width + (room - label.width) // 2, 0))
    return out


def save_strips(rows: Sequence[Tensor], path: Path) -> None:
    """A picture with the first images of each of `rows`, (n, C, H, W), below each other.

    Raises
    ------
    OSError: the file cannot be written.
    """
    columns = min(_STRIP, len(rows[0]))
    save_images(torch.cat([row[:columns] for row in rows]), path, columns)
