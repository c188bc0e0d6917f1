"""TensorBoard's files of a run: the numbers of metrics.csv, the sample grids, the last scores."""

from pathlib import Path

import numpy as np

from huscf_flwr.errors import UserError
from huscf_flwr.report.files import flat, read_run


def require_tensorboard() -> None:
    """Raise `UserError` unless the package that writes its files is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            'tensorboard=true: the package is missing; "pip install tensorboard" installs it'
        ) from None


class Board:
    """Writes to the folder `tensorboard` in the folder of one run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add_last_round(self) -> None:
        """Add what the run's files say about the round that was written last."""
        from PIL import Image

        run = read_run(self._folder)
        last = run.rounds[-1]
        newest = {name: rows[-1] for name, rows in run.curves().items() if rows[-1].round == last}
        # By tag: the seconds of a round are the same for all domains, and count once.
        numbers = {
            column if column == "seconds" else f"{column}/{name}": value
            for name, row in newest.items()
            for column, value in row.values.items()
        }
        for tag, value in numbers.items():
            self._writer.add_scalar(tag, value, last)
        for cluster, grids in run.grids().items():
            if last in grids:
                with Image.open(grids[last]) as picture:
                    pixels = np.asarray(picture)
                self._writer.add_image(f"cluster {cluster}", pixels, last, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Add the scores of summary.json, utility among them, and end."""
        run = read_run(self._folder)
        for of, scores in run.last_scores().items():
            for name, value in flat(scores):
                self._writer.add_scalar(f"final {name}/{of}", value, run.rounds[-1])
        self._writer.close()
