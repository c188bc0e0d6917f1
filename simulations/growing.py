"""Generated images of a run forming over its rounds, as an animated GIF.

    python -m simulations.growing runs/latest docs/growing.gif

Clusters stand side by side, each with a column per class and a few of its samples' rows.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from huscf_flwr.errors import UserError
from huscf_flwr.report.files import read_run
from huscf_flwr.report.grids import GRID_ROWS

_ROWS = 3  # of the samples
_BETWEEN, _CAPTION = 16, 18
_GREYS = 16
_FRAME_MS, _LAST_MS = 180, 2500


def frames(run: Path) -> list[Image.Image]:
    """A picture for each round since there are as many clusters as in the last one.

    Raises
    ------
    UserError: not the folder of a run, or none with samples.
    """
    files = read_run(run)
    rounds: dict[int, list[Path]] = {}
    for by_round in files.grids().values():
        for number, path in by_round.items():
            rounds.setdefault(number, []).append(path)
    if not rounds:
        raise UserError(f"{run}: has no samples")
    clusters, classes = len(rounds[max(rounds)]), int(files.config["num-classes"])
    return [
        _frame(number, paths, classes)
        for number, paths in sorted(rounds.items())
        if len(paths) == clusters
    ]


def _frame(number: int, paths: list[Path], classes: int) -> Image.Image:
    parts = []
    for path in paths:
        with Image.open(path) as grid:
            part = grid.convert("L")
        row = part.width // classes
        below = (GRID_ROWS - _ROWS) * row  # rows that are left out; above may be names
        parts.append(part.crop((0, 0, part.width, part.height - below)))
    width = sum(part.width for part in parts) + _BETWEEN * (len(parts) - 1)
    frame = Image.new("L", (width, max(part.height for part in parts) + _CAPTION), 255)
    left = 0
    for part in parts:
        frame.paste(part, (left, 0))
        left += part.width + _BETWEEN
    ImageDraw.Draw(frame).text((4, frame.height - _CAPTION + 2), f"round {number}", fill=0)
    return frame.quantize(_GREYS)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("out", type=Path, help="the GIF")
    options = parser.parse_args()
    first, *others = frames(options.run)[::-2][::-1]  # every other round, with the last
    times = [_FRAME_MS] * len(others) + [_LAST_MS]
    first.save(options.out, save_all=True, append_images=others, duration=times, loop=0)


if __name__ == "__main__":
    main()
