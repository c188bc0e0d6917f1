"""The tables of a comparison: means over seeds, with their intervals, and differences of pairs."""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huscf_flwr.system.files import replacing
from simulations.results import RUN_COSTS, Difference, Row, half_interval, mean_and_interval

MAIN_SCORES = ("accuracy", "image_score", "frechet_distance_classifier", "frechet_distance")
"""What methods are told apart by, where runs have it: accuracy of a classifier that is trained on
generated images, and how good these look."""

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)
_MARKDOWN = str.maketrans({"|": r"\|"})


def main_scores(rows: Iterable[Row]) -> list[str]:
    """Those of `MAIN_SCORES` that there are."""
    known = {name for row in rows for name in row.values}
    return [name for name in MAIN_SCORES if name in known]


def words(name: str) -> str:
    """A score's name for readers."""
    return name.replace("_", " ")


def write_tables(rows: Sequence[Row], pairs: Sequence[Difference], folder: Path) -> str:
    """Write comparison.csv, .md and .tex, and differences.csv; the text of the second.

    What a row lacks stays blank.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    measures = [f"{name}_{what}" for name in names for what in ("mean", "sd", "interval")]
    heads = [*measures, *(f"{name}_published" for name in published)]
    _write_csv(
        folder / "comparison.csv",
        ["scenario", "method", "domain", "seeds", *heads, "failed"],
        map(_cells, rows),
    )
    _write_csv(
        folder / "differences.csv",
        ["scenario", "domain", "score", "method", "other", "seeds", "mean", "interval"],
        map(_pair_cells, pairs),
    )
    text = _markdown(rows, names, any_published=bool(published))
    for name, content in (("comparison.md", text), ("comparison.tex", _latex(rows))):
        with replacing(folder / name) as aside:
            aside.write_text(content, encoding="utf-8")
    return text


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _cells(row: Row) -> dict[str, str | int]:
    """A line of comparison.csv."""
    cells: dict[str, str | int] = {
        "scenario": row.scenario,
        "method": row.method,
        "domain": row.domain,
        "seeds": row.seeds,
        "failed": _failed(row),
    }
    for name, by_seed in row.values.items():
        values = list(by_seed.values())
        cells[f"{name}_mean"] = f"{statistics.fmean(values):.6g}"
        if len(values) > 1:
            cells[f"{name}_sd"] = f"{statistics.stdev(values):.6g}"
            cells[f"{name}_interval"] = f"{half_interval(values):.6g}"
    return cells | {f"{name}_published": f"{x:.6g}" for name, x in row.published.items()}


def _pair_cells(pair: Difference) -> dict[str, str | int]:
    """A line of differences.csv."""
    several = len(pair.values) > 1
    return {
        **{k: getattr(pair, k) for k in ("scenario", "domain", "score", "method", "other")},
        "seeds": len(pair.values),
        "mean": f"{statistics.fmean(pair.values):.6g}",
        "interval": f"{half_interval(pair.values):.6g}" if several else "",
    }


def _failed(row: Row) -> str:
    return "; ".join(f"seed {seed}: {reason}" for seed, reason in row.failed.items())


def _markdown(rows: Sequence[Row], names: Sequence[str], *, any_published: bool) -> str:
    heads = ["scenario", "method", "domain", *map(words, names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [score_text(row, name) for name in names]
        named = [text.translate(_MARKDOWN) for text in (row.scenario, row.method, row.domain)]
        lines.append("| " + " | ".join([*named, *cells]) + " |")
    if any(row.seeds > 1 for row in rows):
        lines.append("\n±: half the 95% confidence interval of the mean over seeds (Student's t).")
    if any_published:
        lines.append("\nIn parentheses: what the paper's authors published.")
    failed = {(row.scenario, row.method): _failed(row) for row in rows if row.failed}
    for (scenario, method), reasons in failed.items():
        lines.append(f"\n{scenario} with {method} failed: {reasons}")
    return "\n".join(lines) + "\n"


def score_text(row: Row, name: str) -> str:
    """Mean and interval of a row's score, to so many digits as a table has; empty without."""
    if name not in row.values:
        return ""
    theirs = f" ({row.published[name]:.4f})" if name in row.published else ""
    return mean_and_interval(list(row.values[name].values())) + theirs


def _latex(rows: Sequence[Row]) -> str:
    """The main scores and costs, for the package booktabs; a group of lines for each scenario."""
    known = {name for row in rows for name in row.values}
    names = [*main_scores(rows), *(name for name in RUN_COSTS if name in known)]
    heads = ["method", "domain", *map(words, names)]
    lines = [
        r"\begin{tabular}{ll" + "r" * len(names) + "}",
        r"\toprule",
        " & ".join(head.translate(_LATEX) for head in heads) + r" \\",
    ]
    for scenario in dict.fromkeys(row.scenario for row in rows):
        lines.append(r"\midrule")
        for row in (row for row in rows if row.scenario == scenario):
            cells = [score_text(row, name).replace(" ± ", r" \pm ") for name in names]
            named = [row.method.translate(_LATEX), row.domain.translate(_LATEX)]
            lines.append(" & ".join([*named, *(f"${c}$" if c else "" for c in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
