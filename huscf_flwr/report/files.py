"""The files of a run's folder: the columns of its tables, and all that is in it read back."""

import csv
import io
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.scores import CHEAP_SCORES, REAL
from huscf_flwr.system.files import replacing

T = TypeVar("T")

TRAINING = ("generator_loss", "discriminator_loss", "seconds")
"""The columns of metrics.csv that are not scores."""

COSTS = ("client_megabytes", "client_gflops")
"""The columns of metrics.csv that say what a round cost a client, sent and received together."""

PLACE = ("round", "domain", "cluster")
"""The columns of metrics.csv that say what a line is of."""
METRICS = (*PLACE, *CHEAP_SCORES, *(name + REAL for name in CHEAP_SCORES), *COSTS, *TRAINING)
"""The columns of metrics.csv."""
BY_CUT = "by_cut"
"""In summary.json, of a domain: the scores of the generators that clients really have, by the
blocks that they hold at the generator's head and tail."""
OTHERS = "other_clusters"
"""In summary.json, of a domain: the scores of clusters that have fewer of its clients."""
AUDIT = "audit"
"""In summary.json what attacks found, and the folder with their pictures."""
OWN_AUDIT = "own_audit"
"""In summary.json what clients found by attacks of their own on what they send."""
CONFUSION = "confusion_matrix"
"""In summary.json, beside scores: how many held-out images of each class (rows) are taken for each
(columns) by the classifier whose accuracy is the utility."""
DETAILS = "details"
"""In summary.json, beside scores: how they were computed."""


_NUMBERS = re.compile(r"\[\n[\d\s,]+\]")  # a row of a matrix, which JSON would write line by line


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of a run, in place of what was there; raises OSError where that fails."""
    text = json.dumps(content, indent=2) + "\n"
    with replacing(path) as aside:
        aside.write_text(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text), "utf-8")


@dataclass(frozen=True)
class Measured:
    """A line of metrics.csv; `values` has its numbers by column, `seconds` always among them."""

    round: int
    domain: str
    cluster: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Member:
    """A line of clusters.csv: a client in a round. `labels` counts its images of each class."""

    round: int
    client: int
    cluster: int
    kld: float
    weight: float
    domain: str
    size: int
    cut: str
    labels: tuple[int, ...]


CLUSTERS = tuple(field.name for field in fields(Member))
"""The columns of clusters.csv."""


@dataclass(frozen=True)
class RunFiles:
    """What a run has left so far.

    Attributes
    ----------
    config, origin: of config.toml; origin has versions, commit and machine by name.
    metrics, members: of metrics.csv and clusters.csv.
    summary, plan: of summary.json and plan.json; empty where there is none (yet).
    classes: of classes.json: how the labels of each domain that clients were dealt are called.
    """

    folder: Path
    config: Mapping[str, Any]
    origin: Mapping[str, str]
    metrics: list[Measured]
    members: list[Member]
    summary: Mapping[str, Any]
    plan: Mapping[str, Any]
    classes: Mapping[str, Any]

    @property
    def class_names(self) -> list[str]:
        """How labels are called, where all domains agree; empty where they do not."""
        called = {tuple(names) for names in self.classes.values()}
        return list(called.pop()) if len(called) == 1 else []

    @property
    def rounds(self) -> list[int]:
        """The finished rounds."""
        return sorted({row.round for row in self.metrics})

    @property
    def last_members(self) -> list[Member]:
        """The clients of the last round, by domain and number."""
        last = self.rounds[-1]
        members = [member for member in self.members if member.round == last]
        return sorted(members, key=lambda member: (member.domain, member.client))

    def last_scores(self) -> dict[str, dict[str, Any]]:
        """The scores of summary.json by domain, and by cluster where clients have own data.

        A domain that several clusters share has its main cluster's scores under its name, and
        each other's under `<domain>, cluster <number>`.
        """
        return {
            of: _without(scores, DETAILS, BY_CUT, CONFUSION) for of, scores in self._last_scores()
        }

    def by_cut(self) -> dict[str, dict[str, Any]]:
        """What clients with each cut of the generator have, by the names of `last_scores`.

        Scores, and how many `clients`, by blocks at the generator's head and tail.
        """
        return {of: scores[BY_CUT] for of, scores in self._last_scores() if BY_CUT in scores}

    def confusions(self) -> dict[str, list[list[int]]]:
        """The confusion matrices of their utility, where there are some."""
        return {of: s[CONFUSION] for of, s in self._last_scores() if CONFUSION in s}

    def details(self) -> dict[str, dict[str, Any]]:
        """How `last_scores` were computed."""
        return {of: scores.get(DETAILS, {}) for of, scores in self._last_scores()}

    def _last_scores(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for domain, scores in self.summary.get("domains", {}).items():
            yield domain, _without(scores, OTHERS)
            for cluster, other in scores.get(OTHERS, {}).items():
                yield f"{domain}, cluster {cluster}", {"cluster": int(cluster), **other}
        for cluster, scores in self.summary.get("clusters_scores", {}).items():
            yield f"cluster {cluster}", scores

    @property
    def scores(self) -> list[str]:
        """The columns of metrics.csv that are scores and have values."""
        known = {name for row in self.metrics for name in row.values} - {*TRAINING, *COSTS}
        return sorted(name for name in known if not name.endswith(REAL))

    def curves(self) -> dict[str, list[Measured]]:
        """Lines of metrics.csv by domain, round after round; by cluster where no domain is known.

        Of a domain that several clusters share, those of the cluster with most of its clients.
        """
        sizes = Counter((m.round, m.domain, m.cluster) for m in self.members)
        chosen: dict[tuple[str, int], Measured] = {}
        for row in sorted(
            self.metrics, key=lambda row: -sizes[row.round, row.domain, row.cluster]
        ):
            chosen.setdefault((row.domain or f"cluster {row.cluster}", row.round), row)
        curves: dict[str, list[Measured]] = {}
        for (name, _), row in sorted(chosen.items(), key=lambda item: item[0]):
            curves.setdefault(name, []).append(row)
        return curves

    def grids(self) -> dict[int, dict[int, Path]]:
        """The grids of generated images, by cluster and round."""
        found: dict[int, dict[int, Path]] = {}
        for path in sorted((self.folder / "samples").glob("round-*-cluster-*.png")):
            if name := re.fullmatch(r"round-(\d+)-cluster-(\d+)", path.stem):
                found.setdefault(int(name[2]), {})[int(name[1])] = path
        return {c: dict(sorted(by_round.items())) for c, by_round in sorted(found.items())}

    def real_grid(self, domain: str) -> Path | None:
        """The grid of a domain's real images, if the run left one."""
        path = self.folder / "samples" / f"real-{domain}.png"
        return path if path.exists() else None

    def between(self, cluster: int) -> Path | None:
        """What a cluster's generator makes between classes, if the run left it."""
        path = self.folder / "samples" / f"between-cluster-{cluster}.png"
        return path if path.exists() else None

    def nearest(self, domain: str) -> Path | None:
        """Images generated for a domain, and the real ones like them, if the run left them."""
        path = self.folder / "samples" / f"nearest-{domain}.png"
        return path if path.exists() else None

    def sounds(self, cluster: int, domain: str) -> list[Path]:
        """Those of a cluster's generated and of a domain's real recordings, if there are any."""
        generated, real = (
            self.folder / "samples" / name
            for name in (f"cluster-{cluster}.wav", f"real-{domain}.wav")
        )
        return [path for path in (generated, real) if path.exists() and generated.exists()]


def read_run(folder: Path) -> RunFiles:
    """Read the folder of a run, which may still be going on.

    Raises
    ------
    UserError: this is not the folder of a run, no round is finished, or a file is not as a run
        writes it.
    """
    config = folder / "config.toml"
    if not config.is_file():
        raise UserError(f"{folder}: not the folder of a run: it has no config.toml")
    if not (folder / "metrics.csv").is_file():
        raise UserError(f"{folder}: this run has finished no round")
    metrics = _read(folder / "metrics.csv", lambda text: [_measured(row) for row in _rows(text)])
    members = _read(folder / "clusters.csv", lambda text: [_member(row) for row in _rows(text)])
    # A run that was killed while it wrote a round may have left half of it.
    whole = {row.round for row in metrics} & {member.round for member in members}
    if not whole:
        raise UserError(f"{folder}: metrics.csv and clusters.csv have no round in common")
    return RunFiles(
        folder,
        _read(config, lambda text: tomllib.loads(text)),
        _read(config, lambda text: dict(re.findall(r"^# (\S+) (.+)$", text, re.MULTILINE))),
        [row for row in metrics if row.round in whole],
        [member for member in members if member.round in whole],
        _read_json(folder / "summary.json"),
        _read_json(folder / "plan.json"),
        _read_json(folder / "classes.json"),
    )


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_bytes().decode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not as a run writes it: {reason}") from None


def _read_json(path: Path) -> Mapping[str, Any]:
    def parse(text: str) -> Mapping[str, Any]:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        return found

    return _read(path, parse) if path.exists() else {}


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _measured(row: dict[str, str]) -> Measured:
    values = {name: float(text) for name, text in row.items() if text and name not in PLACE}
    if "seconds" not in values:
        raise KeyError("seconds")
    return Measured(int(row["round"]), row["domain"], int(row["cluster"]), values)


def _member(row: dict[str, str]) -> Member:
    return Member(
        int(row["round"]),
        int(row["client"]),
        int(row["cluster"]),
        float(row["kld"]),
        float(row["weight"]),
        row["domain"],
        int(row["size"]),
        row["cut"],
        tuple(int(count) for count in row.get("labels", "").split()),
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, by their names joined with `: `."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", value


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
