"""The folder of a run: made for it alone, and what it has of the run that it goes on from."""

import csv
import logging
import os
import re
import shutil
import threading
import time
from pathlib import Path

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, cause
from huscf_flwr.report.checkpoint import client_states

log = logging.getLogger(__name__)

_LASTING = ("classes.json",)
_PLAN = ("plan.json", "timeline.png")


def create_folder(config: RunConfig, base: Path) -> Path:
    """A folder that no other run has or takes; `runs/latest` points to it if it is below `base`.

    Raises
    ------
    UserError: it cannot be written, or is named and holds a run already.
    """
    runs = base / "runs"
    # Of an own strategy, `module:Class`, the class; and nothing that a file system may not take.
    label = re.sub(r"[^\w.-]+", "-", config.name or config.strategy.rpartition(":")[2])
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = base / config.output_dir if config.output_dir else runs / f"{stamp}-{label}"
    number = 2
    try:
        while not _claimed(folder):
            if config.output_dir:
                raise UserError(f'output-dir="{folder}" holds a run already: name another folder')
            folder = runs / f"{stamp}-{label}-{number}"
            number += 1
        for part in (folder / "samples", client_states(folder)):
            part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'output-dir="{folder}" cannot be written: {cause(error)}') from None
    if folder.is_relative_to(base):
        try:
            _point_to(folder, runs)
        except OSError as error:
            log.warning("no %s: %s", runs / "latest", cause(error))
    return folder.resolve()


def _claimed(folder: Path) -> bool:
    """Make this folder this run's; False if it is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "config.toml").open("x").close()
    except FileExistsError:
        return False
    return True


def _point_to(folder: Path, runs: Path) -> None:
    runs.mkdir(exist_ok=True)
    pointer = runs / f".latest-{os.getpid()}-{threading.get_ident()}"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(os.path.relpath(folder, runs), target_is_directory=True)
    pointer.replace(runs / "latest")


def rows_until(round_: int, table: Path) -> list[dict[str, str]]:
    """The lines of a run's table, by column, up to those of this round."""
    with table.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["round"]) <= round_]


def take_over(before: Path, folder: Path, round_: int, *, planned: bool) -> None:
    """Copy what a run has shown up to this round, but for its tables, to one that goes on.

    With `planned`, the plan of its cuts, too, which clients keep.
    """
    for path in sorted((before / "samples").glob("*.png")):
        of_round = re.match(r"round-(\d+)-", path.name)
        if of_round is None or int(of_round[1]) <= round_:
            shutil.copyfile(path, folder / "samples" / path.name)
    for name in (*_LASTING, *(_PLAN if planned else ())):
        if (before / name).exists():
            shutil.copyfile(before / name, folder / name)
