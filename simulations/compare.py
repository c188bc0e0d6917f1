"""Comparing scenarios, strategies and seeds: many runs in this process, and one table of them."""

import csv
import itertools
import json
import logging
import statistics
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from huscf_flwr.config import RunConfig, read_settings
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from simulations.engine import Engine
from strategies import load_strategy

log = logging.getLogger("huscf_flwr.compare")

PUBLISHED = Path(__file__).with_name("published.toml")
_UTILITY = ("accuracy", "precision", "recall", "f1", "fpr")


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    scenario: str
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where its results are, now or once it has run."""
        return Path(self.config.output_dir)

    @property
    def finished(self) -> bool:
        """Whether it has written its summary, after all rounds."""
        return (self.folder / "summary.json").exists()

    def __str__(self) -> str:
        return f'{self.scenario} with strategy="{self.config.strategy}"'


@dataclass(frozen=True)
class Row:
    """What runs that differ in their seed alone gave for one domain.

    Attributes
    ----------
    values: by name, the score of each seed that has it; utility as a share of one.
    published: the authors' figures, as shares of one; empty where there are none.
    """

    scenario: str
    strategy: str
    domain: str
    values: Mapping[str, Sequence[float]]
    published: Mapping[str, float]


def plan_runs(
    files: Iterable[str],
    pairs: Sequence[str],
    *,
    strategies: Sequence[str],
    seeds: int,
    folder: Path,
    base_dir: str,
) -> list[Run]:
    """The runs of a comparison, all checked and their data loaded before the first begins.

    Parameters
    ----------
    files: TOML files with run keys; a scenario is named by its key `name`, or else its file.
    pairs: `key=value`, set in every scenario in place of what its file says.
    strategies: values of the key `strategy`; those of the files if empty.
    seeds: how many, counted from the file's.
    folder: every run gets a folder of its own in it, whatever `output-dir` says.
    base_dir: folder that relative data paths start from.

    Raises
    ------
    UserError: a file cannot be read or has a wrong key; a strategy or a domain cannot be loaded;
        two scenarios have one name, or two runs one folder; or a run that finished in its folder
        had other keys.
    """
    runs: list[Run] = []
    for file in files:
        config = RunConfig.from_mapping(read_settings(file, pairs))
        scenario = config.name or Path(file).stem
        if any(run.scenario == scenario for run in runs):
            raise UserError(f'{file}: another scenario is named "{scenario}", too')
        for strategy in strategies or [config.strategy]:
            load_strategy(strategy)
            for seed in range(config.seed, config.seed + seeds):
                label = f"{scenario}-{strategy.rpartition(':')[2].lower()}-seed-{seed}"
                folder_of_run = str(folder / label)
                one = replace(
                    config, strategy=strategy, seed=seed, name=label, output_dir=folder_of_run
                )
                runs.append(Run(scenario, one))
    _check_folders(runs)
    for run in runs:
        if run.finished:
            _check_keys(run)
        else:
            for source in run.config.data_settings(base_dir).sources:
                load_domain(source, run.config.image_format)
    return runs


def _check_folders(runs: Iterable[Run]) -> None:
    taken: dict[Path, Run] = {}
    for run in runs:
        other = taken.setdefault(run.folder, run)
        if other is not run:
            raise UserError(
                f"{other} and {run} would both be in {run.folder}: leave one out, or give their "
                "classes different names"
            )


def _check_keys(run: Run) -> None:
    """Raise `UserError` unless a finished run had the keys that are planned."""
    had = RunConfig.from_mapping(read_settings(str(run.folder / "config.toml"), [])).as_dict()
    planned = run.config.as_dict()
    others = [
        f"{key}={had[key]!r} (now {planned[key]!r})"
        for key in planned
        if key != "output-dir" and had[key] != planned[key]  # the folder may have been moved
    ]
    if others:
        raise UserError(
            f"{run.folder} holds a run with {', '.join(others)}: set these keys as they were, "
            "name another folder by --out, or delete this one to train it again"
        )


def perform(runs: Sequence[Run], base_dir: str, folder: Path) -> None:
    """Train all runs that have not finished, one after the other; the tables follow each.

    A run that was interrupted begins anew; what it left is kept beside it.

    Raises
    ------
    UserError: another comparison is running in `folder`, or it cannot be written; or a run cannot
        begin or go on, as its message says.
    """
    with _locked(folder):
        _train(runs, base_dir, folder)


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


def _train(runs: Sequence[Run], base_dir: str, folder: Path) -> None:
    due = [run for run in runs if not run.finished]
    log.info("%d runs, %d of them finished before", len(runs), len(runs) - len(due))
    started = time.monotonic()
    for number, run in enumerate(due, start=1):
        _set_aside(run.folder)
        log.info("run %d of %d: %s", number, len(due), run.config.name)
        Engine(run.config, base_dir).run()
        write_tables(rows_of(runs), folder)
        left = (time.monotonic() - started) / number * (len(due) - number)
        log.info("%d runs left, about %.0f min", len(due) - number, left / 60)


def _set_aside(folder: Path) -> None:
    """Rename the folder of an interrupted run, if there is one, to `<name>.interrupted-<n>`."""
    if not folder.exists():
        return
    names = (folder.with_name(f"{folder.name}.interrupted-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    log.info("%s was interrupted: what it left is now %s", folder.name, aside)


def rows_of(runs: Iterable[Run]) -> list[Row]:
    """The results of those runs that have finished, by scenario, strategy and domain."""
    published = tomllib.loads(PUBLISHED.read_text())
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        if run.finished:
            summary = json.loads((run.folder / "summary.json").read_text())
            groups.setdefault((run.scenario, run.config.strategy), []).append(summary)
    return [
        Row(
            scenario,
            strategy,
            domain,
            _values([_flat(s, domain) for s in summaries if domain in s["domains"]]),
            {
                name: value / 100
                for name, value in published.get(scenario, {}).get(domain, {}).items()
            },
        )
        for (scenario, strategy), summaries in groups.items()
        for domain in dict.fromkeys(domain for s in summaries for domain in s["domains"])
    ]


def _flat(summary: Mapping[str, Any], domain: str) -> dict[str, float]:
    scores = summary["domains"][domain]
    found = {name: scores["utility"][name] for name in _UTILITY}
    found |= {
        name: value
        for name, value in scores.items()
        if name != "cluster" and isinstance(value, float | int)
    }
    return found | {"adjusted_rand_index": summary["adjusted_rand_index"]}


def _values(seeds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for scores in seeds for name in scores)
    return {name: [scores[name] for scores in seeds if name in scores] for name in names}


def write_tables(rows: Sequence[Row], folder: Path) -> str:
    """Write comparison.csv and comparison.md; the latter's text. What a row lacks stays blank."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    with (folder / "comparison.csv").open("w", newline="") as file:
        spread = [f"{name}_{what}" for name in names for what in ("mean", "sd")]
        heads = [*spread, *(f"{name}_published" for name in published)]
        writer = csv.DictWriter(file, ["scenario", "strategy", "domain", "seeds", *heads])
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)
    heads = ["scenario", "strategy", "domain", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [_text(row, name) for name in names]
        lines.append("| " + " | ".join([row.scenario, row.strategy, row.domain, *cells]) + " |")
    if published:
        lines.append("\nIn parentheses: what the paper's authors published.")
    text = "\n".join(lines) + "\n"
    (folder / "comparison.md").write_text(text)
    return text


def _cells(row: Row) -> dict[str, str | int]:
    """A line of comparison.csv."""
    cells: dict[str, str | int] = {
        "scenario": row.scenario,
        "strategy": row.strategy,
        "domain": row.domain,
        "seeds": max(map(len, row.values.values())),
    }
    for name, values in row.values.items():
        mean, spread = _mean_and_spread(values)
        cells |= {f"{name}_mean": f"{mean:.6g}", f"{name}_sd": f"{spread:.6g}"}
    return cells | {f"{name}_published": f"{x:.6g}" for name, x in row.published.items()}


def _text(row: Row, name: str) -> str:
    """A cell of comparison.md."""
    if name not in row.values:
        return ""
    mean, spread = _mean_and_spread(row.values[name])
    several = f" ± {spread:.3g}" if len(row.values[name]) > 1 else ""
    theirs = f" ({row.published[name]:.4f})" if name in row.published else ""
    return f"{mean:#.4g}{several}{theirs}"


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation over seeds: 0 for one seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
