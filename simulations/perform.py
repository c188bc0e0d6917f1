"""Training the runs of a comparison that have not finished; its tables and page follow each."""

import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.logs import in_words
from simulations.compare import Run
from simulations.comparison_page import write_comparison_page
from simulations.results import differences, rows_of
from simulations.tables import main_scores, write_tables
from simulations.workers import Workers, log_of

log = logging.getLogger("huscf_flwr.compare")


def perform(
    runs: Sequence[Run], base_dir: str, folder: Path, workers: Workers, *, at_a_time: int = 1
) -> tuple[str, dict[Run, str]]:
    """Train all runs that have not finished.

    A run that was interrupted begins anew; what it left is kept beside it. One that fails stops
    no other. `at_a_time` is how many `workers` train side by side, as far as that is known.

    Returns
    -------
    The table as text, and why runs failed.

    Raises
    ------
    UserError: another comparison is running in `folder`, or it cannot be written.
    """
    with _locked(folder):
        return _train(runs, base_dir, folder, workers, at_a_time)


def _locked(folder: Path) -> AbstractContextManager[object]:
    """Held against other comparisons: a run that they train would look like an interrupted one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another comparison is running there: let it end, or name another folder "
            "by --out"
        ) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from None


def _train(
    runs: Sequence[Run], base_dir: str, folder: Path, workers: Workers, at_a_time: int
) -> tuple[str, dict[Run, str]]:
    due = [run for run in runs if not run.finished]
    log.info("%d runs, %d of them finished before", len(runs), len(runs) - len(due))
    for run in due:
        _set_aside(run.folder)
    failures: dict[Run, str] = {}
    started = time.monotonic()
    for number, (index, failure) in enumerate(workers([r.config for r in due], base_dir), 1):
        run = due[index]
        if failure is not None:
            failures[run] = failure
            log.warning("%s failed: %s", run.config.name, failure)
        left = time_left(time.monotonic() - started, number, len(due), at_a_time)
        log.info(
            "run %d of %d, %s, has ended: about %s to go",
            *(number, len(due), run.config.name, in_words(left)),
        )
        try:
            _show(runs, failures, folder)
        except Exception as error:  # whatever it is, the others go on
            log.warning("no tables, no page: %s: %s", type(error).__name__, cause(error))
    return _show(runs, failures, folder), failures


def time_left(seconds: float, ended: int, due: int, at_a_time: int) -> float:
    """How long the rest will take, if runs take equally long and so many are trained at a time."""
    waves, done = -(-due // at_a_time), -(-ended // at_a_time)
    return seconds / done * (waves - done)


def _show(runs: Sequence[Run], failures: dict[Run, str], folder: Path) -> str:
    """Write the tables and the page; the table as text."""
    rows = rows_of(runs, failures)
    pairs = differences(rows, main_scores(rows))
    text = write_tables(rows, pairs, folder)
    write_comparison_page(runs, rows, pairs, folder)
    return text


def _set_aside(folder: Path) -> None:
    """Rename the folder of an interrupted run, if there is one, to `<name>.interrupted-<n>`."""
    if not folder.exists():
        return
    names = (folder.with_name(f"{folder.name}.interrupted-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    if log_of(folder).exists():
        log_of(folder).rename(log_of(aside))
    log.info("%s was interrupted: what it left is now %s", folder.name, aside)
