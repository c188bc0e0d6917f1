"""What the runs of a comparison gave: scores by seed, and differences between methods."""

import itertools
import json
import math
import statistics
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from huscf_flwr.config import RunConfig
from huscf_flwr.keys import read_settings
from huscf_flwr.report.files import OTHERS
from simulations.compare import Run

PUBLISHED = Path(__file__).with_name("published.toml")
RUN_COSTS = ("predicted_round_s", "client_megabytes_per_round", "client_gflops_per_round")
"""Values of a row that are no scores, and the same for all domains of a run."""
_ANY = ("name", "seed", "output-dir", "data-root", "download", "device", "tensorboard",
        "evaluate-every", "inception-weights")  # fmt: skip
"""Keys that change nothing of what a run ends in, or only by chance."""
_UTILITY = ("accuracy", "precision", "recall", "f1", "fpr")


@dataclass(frozen=True)
class Row:
    """What runs that differ in their seed alone gave for one domain.

    Attributes
    ----------
    values: by name, the score by the seeds that have it; utility as a share of one.
    published: the authors' figures, as shares of one; empty where there are none, or where
        this is not their method, or not scored as theirs.
    failed: why runs ended early, by seed. Of a method none of whose runs ended well there is one
        row, with no domain.
    """

    scenario: str
    method: str
    domain: str
    values: Mapping[str, Mapping[int, float]]
    published: Mapping[str, float]
    failed: Mapping[int, str]

    @property
    def seeds(self) -> int:
        """Of how many runs there are values."""
        return max(map(len, self.values.values()), default=0)


@dataclass(frozen=True)
class Difference:
    """By how much a method's score is above another's, seed by seed."""

    scenario: str
    domain: str
    score: str
    method: str
    other: str
    values: Sequence[float]


def rows_of(runs: Iterable[Run], failures: Mapping[Run, str]) -> list[Row]:
    """The results of those runs that have ended, by scenario, method and domain."""
    published = tomllib.loads(PUBLISHED.read_text())
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.finished or run in failures:
            groups.setdefault((run.scenario, run.method), []).append(run)
    rows: list[Row] = []
    for (scenario, method), of_method in groups.items():
        failed = {run.config.seed: failures[run] for run in of_method if not run.finished}
        summaries = {
            run.config.seed: json.loads((run.folder / "summary.json").read_text())
            for run in of_method
            if run.finished
        }
        if not summaries:
            rows.append(Row(scenario, method, "", {}, {}, failed))
        theirs = published.get(scenario, {}) if all(map(_as_theirs, of_method)) else {}
        for domain in dict.fromkeys(d for s in summaries.values() for d in s["domains"]):
            found = {k: _scores(s, domain) for k, s in summaries.items() if domain in s["domains"]}
            shares = {name: value / 100 for name, value in theirs.get(domain, {}).items()}
            rows.append(Row(scenario, method, domain, _by_name(found), shares, failed))
    return rows


def differences(rows: Sequence[Row], scores: Iterable[str]) -> list[Difference]:
    """Of every two methods of a scenario, for each domain, over the seeds that both have."""
    found = []
    for score, (one, other) in itertools.product(scores, itertools.combinations(rows, 2)):
        if (one.scenario, one.domain) != (other.scenario, other.domain):
            continue
        ours, theirs = one.values.get(score, {}), other.values.get(score, {})
        if values := [ours[seed] - theirs[seed] for seed in ours if seed in theirs]:
            place = one.scenario, one.domain, score
            found.append(Difference(*place, one.method, other.method, values))
    return found


def half_interval(values: Sequence[float]) -> float:
    """Half the 95% confidence interval of the mean of at least two values, by Student's t."""
    quantile = float(stdtrit(len(values) - 1, 0.975))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def rounded(value: float, digits: int) -> str:
    """A number with so many significant digits, or all before the point, and no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def mean_and_interval(values: Sequence[float]) -> str:
    """The mean, and half its 95% interval where there are several values, to a few digits."""
    several = f" ± {rounded(half_interval(values), 2)}" if len(values) > 1 else ""
    return f"{rounded(statistics.fmean(values), 4)}{several}"


def with_interval(values: Sequence[float]) -> str:
    """The mean, and half its 95% interval where there are several values, to three digits."""
    several = f" ± {half_interval(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{several}"


def _as_theirs(run: Run) -> bool:
    """Whether this is what the authors published scores of: all keys as in the scenario's file."""
    file = PUBLISHED.with_name(f"{run.scenario}.toml")
    if not file.exists():
        return False
    theirs = RunConfig.from_mapping(read_settings(str(file), [])).as_dict()
    ours = run.config.as_dict()
    return all(ours[key] == theirs[key] for key in theirs if key not in _ANY)


def _scores(summary: Mapping[str, Any], domain: str) -> dict[str, float]:
    """Of its cluster's generator, the mean over the domain's clients; and what the run cost."""
    main = summary["domains"][domain]
    clusters = [main, *main.get(OTHERS, {}).values()]
    clients = [cluster["clients"] for cluster in clusters]
    flat = [
        {name: cluster["utility"][name] for name in _UTILITY if "utility" in cluster}
        | {
            name: value
            for name, value in cluster.items()
            if name not in ("cluster", "clients") and isinstance(value, float | int)
        }
        for cluster in clusters
    ]
    found = {
        name: statistics.fmean([scores[name] for scores in flat], clients) for name in flat[0]
    }
    return found | _of_run(summary)


def _of_run(summary: Mapping[str, Any]) -> dict[str, float]:
    """The same for all domains; what is known of it: runs of older versions say less."""
    found: dict[str, float | None] = {
        "adjusted_rand_index": summary["adjusted_rand_index"],
        RUN_COSTS[0]: summary.get("latency", {}).get(RUN_COSTS[0]),
    }
    if costs := summary.get("costs_per_client_and_round"):
        found[RUN_COSTS[1]] = (costs["sent_bytes"] + costs["received_bytes"]) / 1e6
        found[RUN_COSTS[2]] = costs["gflops"]
    return {name: value for name, value in found.items() if value is not None}


def _by_name(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    names = dict.fromkeys(name for scores in by_seed.values() for name in scores)
    return {
        name: {seed: scores[name] for seed, scores in by_seed.items() if name in scores}
        for name in names
    }
