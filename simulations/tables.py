"""The table of a comparison: means over seeds, with their intervals."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.special import stdtrit


@dataclass(frozen=True)
class Row:
    """What runs that differ in their seed alone gave for one domain.

    Attributes
    ----------
    values: by name, the score of each seed that has it; utility as a share of one.
    published: the authors' figures, as shares of one; empty where there are none, or where
        this is not their method, or not scored as theirs.
    """

    scenario: str
    method: str
    domain: str
    values: Mapping[str, Sequence[float]]
    published: Mapping[str, float]


def write_tables(rows: Sequence[Row], folder: Path) -> str:
    """Write comparison.csv and comparison.md; the latter's text. What a row lacks stays blank."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    with (folder / "comparison.csv").open("w", newline="") as file:
        measures = [f"{name}_{what}" for name in names for what in ("mean", "sd", "interval")]
        heads = [*measures, *(f"{name}_published" for name in published)]
        writer = csv.DictWriter(file, ["scenario", "method", "domain", "seeds", *heads])
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)
    heads = ["scenario", "method", "domain", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [_text(row, name) for name in names]
        lines.append("| " + " | ".join([row.scenario, row.method, row.domain, *cells]) + " |")
    if any(len(values) > 1 for row in rows for values in row.values.values()):
        lines.append("\n±: half the 95% confidence interval of the mean over seeds (Student's t).")
    if published:
        lines.append("\nIn parentheses: what the paper's authors published.")
    text = "\n".join(lines) + "\n"
    (folder / "comparison.md").write_text(text)
    return text


def _cells(row: Row) -> dict[str, str | int]:
    """A line of comparison.csv."""
    cells: dict[str, str | int] = {
        "scenario": row.scenario,
        "method": row.method,
        "domain": row.domain,
        "seeds": max(map(len, row.values.values())),
    }
    for name, values in row.values.items():
        cells[f"{name}_mean"] = f"{statistics.fmean(values):.6g}"
        if len(values) > 1:
            cells[f"{name}_sd"] = f"{statistics.stdev(values):.6g}"
            cells[f"{name}_interval"] = f"{half_interval(values):.6g}"
    return cells | {f"{name}_published": f"{x:.6g}" for name, x in row.published.items()}


def _text(row: Row, name: str) -> str:
    """A cell of comparison.md."""
    if name not in row.values:
        return ""
    values = row.values[name]
    several = f" ± {half_interval(values):.2g}" if len(values) > 1 else ""
    theirs = f" ({row.published[name]:.4f})" if name in row.published else ""
    return f"{statistics.fmean(values):#.4g}{several}{theirs}"


def half_interval(values: Sequence[float]) -> float:
    """Half the 95% confidence interval of the mean of at least two values, by Student's t."""
    quantile = float(stdtrit(len(values) - 1, 0.975))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def with_interval(values: Sequence[float]) -> str:
    """The mean, and half its 95% interval where there are several values, to three digits."""
    several = f" ± {half_interval(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{several}"
