"""`comparison.html`: one page that shows a comparison, and needs no other file and no network."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError
from huscf_flwr.report import figures
from huscf_flwr.report.files import Measured, RunFiles, read_run
from huscf_flwr.report.rendering import render
from huscf_flwr.system.files import replacing
from simulations import comparison_figures
from simulations.compare import Run
from simulations.comparison_template import COMPARISON
from simulations.results import (
    RUN_COSTS,
    Difference,
    Row,
    half_interval,
    mean_and_interval,
    rounded,
)
from simulations.tables import main_scores, score_text, words
from strategies import load_strategy

_CURVES = ("image_score", "frechet_distance_classifier")


def write_comparison_page(
    runs: Sequence[Run], rows: Sequence[Row], pairs: Sequence[Difference], folder: Path
) -> Path:
    """Put the page into the comparison's folder; its path.

    Raises
    ------
    OSError: it cannot be written.
    """
    with figures.style():
        content = _content(runs, rows, pairs, folder)
    path = folder / "comparison.html"
    with replacing(path) as aside:
        aside.write_text(render(COMPARISON, content), encoding="utf-8")
    return path


def _content(
    runs: Sequence[Run], rows: Sequence[Row], pairs: Sequence[Difference], folder: Path
) -> dict[str, Any]:
    """What the template shows, by the template's names."""
    scenarios = list(dict.fromkeys(run.scenario for run in runs))
    ended = sum(run.finished for run in runs)
    failed = {(r.scenario, r.method, seed): why for r in rows for seed, why in r.failed.items()}
    return {
        "name": "Comparison",
        "about": f"What the runs in {folder} gave"
        + ("." if ended + len(failed) == len(runs) else "; others are going on, or are due."),
        "sections": {f"scenario-{n}": name for n, name in enumerate(scenarios)}
        | {"crossing": "What crosses", "runs": "Runs"},
        "headline": {
            "scenarios": len(scenarios),
            "methods": len({run.method for run in runs}),
            "seeds": len({run.config.seed for run in runs}),
            "finished runs": f"{ended} of {len(runs)}",
            "failed runs": len(failed),
        },
        "scenarios": [
            _scenario(
                f"scenario-{n}",
                name,
                [run for run in runs if run.scenario == name and run.finished],
                [row for row in rows if row.scenario == name],
                [pair for pair in pairs if pair.scenario == name],
            )
            for n, name in enumerate(scenarios)
        ],
        "crossing": _crossing(runs),
        "failed": [[f"{s} with {m}", seed, why] for (s, m, seed), why in failed.items()],
        "runs": [
            [run.config.name, str(run.folder), "finished" if run.finished else "-"] for run in runs
        ],
    }


def _scenario(
    anchor: str, name: str, runs: Sequence[Run], rows: Sequence[Row], pairs: Sequence[Difference]
) -> dict[str, Any]:
    scored = [row for row in rows if row.values]
    scores = main_scores(scored)
    read = [(run, found) for run in runs if (found := _read(run)) is not None]
    return {
        "id": anchor,
        "name": name,
        "bars": comparison_figures.bars(scored, scores) if scored else None,
        "tables": list(_tables(scored, scores)),
        "costs_head": ["method", *map(words, RUN_COSTS)],
        "costs": [
            [method, *(_cost(scored, method, cost) for cost in RUN_COSTS)]
            for method in dict.fromkeys(row.method for row in scored)
        ],
        "curves": list(_curves(read)),
        "grids": list(_grids(read)),
        "pairs": list(_pair_tables(pairs)),
    }


def _read(run: Run) -> RunFiles | None:
    try:
        return read_run(run.folder)
    except UserError:  # somebody has changed its files: the page can do without them
        return None


def _tables(rows: Sequence[Row], scores: Sequence[str]) -> Iterator[dict[str, Any]]:
    """For each domain, the methods' main scores."""
    for domain in dict.fromkeys(row.domain for row in rows):
        yield {
            "title": domain,
            "head": ["method", "seeds", *map(figures.title, scores)],
            "rows": [
                [row.method, row.seeds, *(score_text(row, score) for score in scores)]
                for row in rows
                if row.domain == domain
            ],
        }


def _cost(rows: Sequence[Row], method: str, cost: str) -> str | None:
    values = [v for r in rows if r.method == method for v in r.values.get(cost, {}).values()]
    return rounded(statistics.fmean(values), 3) if values else None


def _curves(read: Sequence[tuple[Run, RunFiles]]) -> Iterator[dict[str, Any]]:
    """For each score that rounds have, its charts."""
    by_domain: dict[str, dict[str, list[list[Measured]]]] = {}
    for run, files in read:
        for domain, lines in _means(files).items():
            by_domain.setdefault(domain, {}).setdefault(run.method, []).append(lines)
    for score in _CURVES:
        if (picture := comparison_figures.curves(by_domain, score)) is not None:
            yield {"title": figures.title(score), "picture": picture}


def _means(files: RunFiles) -> dict[str, list[Measured]]:
    """A run's lines by domain, round after round: means over the clusters that share it."""
    sizes = Counter((m.round, m.domain, m.cluster) for m in files.members)
    groups: dict[tuple[str, int], list[Measured]] = {}
    for row in files.metrics:
        groups.setdefault((row.domain, row.round), []).append(row)
    found: dict[str, list[Measured]] = {}
    for (domain, number), rows in sorted(groups.items()):
        clients = [sizes[number, domain, row.cluster] for row in rows]
        values = {
            name: statistics.fmean([row.values[name] for row in rows], clients)
            for name in rows[0].values
            if all(name in row.values for row in rows)
        }
        found.setdefault(domain, []).append(replace(rows[0], values=values))
    return found


def _grids(read: Sequence[tuple[Run, RunFiles]]) -> Iterator[dict[str, Any]]:
    """For each domain real images, and what each method generates in the end, of one seed."""
    by_seed: dict[int, dict[str, RunFiles]] = {}
    for run, files in read:
        by_seed.setdefault(run.config.seed, {})[run.method] = files
    first = max(by_seed.values(), key=len, default={})  # the first seed that most methods have
    domains = dict.fromkeys(domain for files in first.values() for domain in files.curves())
    for domain in domains:
        pictures: list[figures.Picture] = []
        for method, files in first.items():
            last = files.curves()[domain][-1] if domain in files.curves() else None
            real = files.real_grid(domain)
            if real is not None and not pictures:
                pictures.append(figures.image(real, f"Real {domain}, held out", "real"))
            grid = last and files.grids().get(last.cluster, {}).get(last.round)
            if grid:
                what = f"{domain} as {method} generates it"
                pictures.append(figures.image(grid, what, method))
        yield {"title": domain, "pictures": pictures}


def _pair_tables(pairs: Sequence[Difference]) -> Iterator[dict[str, Any]]:
    """For each score and domain a square: a line's method less a column's, seed by seed."""
    for score, domain in dict.fromkeys((pair.score, pair.domain) for pair in pairs):
        found = {
            (p.method, p.other): list(p.values)
            for p in pairs
            if (p.score, p.domain) == (score, domain)
        }
        methods = list(dict.fromkeys(name for both in found for name in both))
        found |= {(b, a): [-value for value in values] for (a, b), values in found.items()}
        yield {
            "title": f"{figures.title(score)}, {domain}",
            "head": ["less", *methods],
            "rows": [
                [one, *(difference_cell(found.get((one, other)), score) for other in methods)]
                for one in methods
            ],
        }


def difference_cell(values: Sequence[float] | None, score: str) -> dict[str, Any]:
    """A cell: its text, and whether the interval says the line's method is better or worse."""
    if not values:
        return {"text": "", "says": ""}
    mean, text = statistics.fmean(values), mean_and_interval(values)
    if len(values) < 2 or abs(mean) <= half_interval(values):
        return {"text": text, "says": ""}
    better = (mean < 0) == figures.lower_is_better(score)
    return {"text": text, "says": "better" if better else "worse"}


def _crossing(runs: Sequence[Run]) -> list[list[str]]:
    """For each method what crosses, as its strategy says it."""
    strategies = {run.method: run.config.strategy for run in runs}
    return [
        [method, "; ".join(map(str, load_strategy(strategy).crosses)) or "it does not say"]
        for method, strategy in strategies.items()
    ]
