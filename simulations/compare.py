"""Comparing scenarios, strategies and seeds: many runs in this process, and one table of them."""

import csv
import json
import logging
import statistics
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huscf_flwr.config import RunConfig, read_settings
from huscf_flwr.errors import UserError
from simulations.engine import Engine

log = logging.getLogger("huscf_flwr.compare")

PUBLISHED = Path(__file__).with_name("published.toml")
_UTILITY = ("accuracy", "precision", "recall", "f1", "fpr")
_PUBLISHED = ("accuracy", "f1", "fpr")


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    scenario: str
    config: RunConfig


@dataclass(frozen=True)
class Row:
    """What runs that differ in their seed alone gave for one domain.

    Attributes
    ----------
    values: the scores of each seed, by name; utility as a share of one.
    published: the authors' figures, as shares of one; empty where there are none.
    """

    scenario: str
    strategy: str
    domain: str
    values: Mapping[str, Sequence[float]]
    published: Mapping[str, float]


def plan_runs(
    files: Iterable[str], strategies: Sequence[str], seeds: int, folder: Path
) -> list[Run]:
    """The runs of a comparison, all checked before the first begins.

    Parameters
    ----------
    files: TOML files with run keys; a scenario is named by its key `name`, or else its file.
    strategies: values of the key `strategy`; those of the files if empty.
    seeds: how many, counted from the file's.
    folder: every run gets a folder of its own in it.

    Raises
    ------
    UserError: a file cannot be read, has a wrong key, or two have one name.
    """
    runs: list[Run] = []
    for file in files:
        config = RunConfig.from_mapping(read_settings(file, []))
        scenario = config.name or Path(file).stem
        if any(run.scenario == scenario for run in runs):
            raise UserError(f'{file}: another scenario is named "{scenario}", too')
        for strategy in strategies or [config.strategy]:
            for seed in range(config.seed, config.seed + seeds):
                label = f"{scenario}-{strategy.rpartition(':')[2].lower()}-seed-{seed}"
                folder_of_run = str(folder / label)
                one = replace(
                    config, strategy=strategy, seed=seed, name=label, output_dir=folder_of_run
                )
                runs.append(Run(scenario, one))
    return runs


def perform(runs: Sequence[Run], base_dir: str) -> None:
    """Train all runs that have no summary yet, one after the other.

    Raises
    ------
    UserError: a run cannot begin or go on, as its message says.
    """
    started, trained = time.monotonic(), 0
    for number, run in enumerate(runs, start=1):
        if (Path(run.config.output_dir) / "summary.json").exists():
            log.info("run %d of %d, %s: finished before", number, len(runs), run.config.name)
            continue
        log.info("run %d of %d: %s", number, len(runs), run.config.name)
        Engine(run.config, base_dir).run()
        trained += 1
        left = (time.monotonic() - started) / trained * (len(runs) - number)
        log.info("%d runs left, about %.0f min", len(runs) - number, left / 60)


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """The results of finished runs, by scenario, strategy and domain."""
    published = tomllib.loads(PUBLISHED.read_text())
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        summary = json.loads((Path(run.config.output_dir) / "summary.json").read_text())
        groups.setdefault((run.scenario, run.config.strategy), []).append(summary)
    return [
        Row(
            scenario,
            strategy,
            domain,
            _values([_flat(summary, domain) for summary in summaries]),
            {
                name: value / 100
                for name, value in published.get(scenario, {}).get(domain, {}).items()
            },
        )
        for (scenario, strategy), summaries in groups.items()
        for domain in summaries[0]["domains"]
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
    return {name: [scores[name] for scores in seeds] for name in seeds[0]}


def write_tables(rows: Sequence[Row], folder: Path) -> str:
    """Write comparison.csv and comparison.md; the latter's text."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    published = [name for name in _PUBLISHED if any(row.published for row in rows)]
    with (folder / "comparison.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        spread = [f"{name}_{what}" for name in names for what in ("mean", "sd")]
        heads = [*spread, *(f"{name}_published" for name in published)]
        writer.writerow(["scenario", "strategy", "domain", "seeds", *heads])
        for row in rows:
            cells = [f"{x:.6g}" for name in names for x in _mean_and_spread(row.values[name])]
            cells += [f"{row.published[n]:.6g}" if n in row.published else "" for n in published]
            seeds = len(next(iter(row.values.values())))
            writer.writerow([row.scenario, row.strategy, row.domain, seeds, *cells])
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


def _text(row: Row, name: str) -> str:
    mean, spread = _mean_and_spread(row.values[name])
    several = f" ± {spread:.3f}" if len(row.values[name]) > 1 else ""
    theirs = f" ({row.published[name]:.3f})" if name in row.published else ""
    return f"{mean:.3f}{several}{theirs}"


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation over seeds: 0 for one seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
