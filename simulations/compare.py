"""Comparing scenarios, methods and seeds: many runs in this process, and one table of them."""

import itertools
import json
import logging
import re
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
from huscf_flwr.data.partition import label_counts
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.recipes import AUTHORS
from simulations.engine import DEFAULT_CLIENTS, Engine
from simulations.tables import Row, write_tables
from strategies import load_strategy

log = logging.getLogger("huscf_flwr.compare")

PUBLISHED = Path(__file__).with_name("published.toml")
_UTILITY = ("accuracy", "precision", "recall", "f1", "fpr")


Methods = Mapping[str, Mapping[str, Any]]
"""What is compared, by its name in the table: keys that go before those of the scenario."""
POOLED = "one-client-per-domain"
"""A key of methods only: whether all images of a domain are in one place."""


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    scenario: str
    method: str
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
        return f"{self.scenario} with {self.method}"


def read_methods(path: str) -> Methods:
    """Methods from a TOML file: a table of run keys for each, named as it is to be called.

    Raises
    ------
    UserError: it cannot be read, or holds something else.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as TOML: {error}") from None
    for name, keys in found.items():
        if not isinstance(keys, dict):
            raise UserError(f'{path}: "{name}" is no table of run keys')
    if not found:
        raise UserError(f"{path}: no method in it")
    return found


def plan_runs(
    files: Iterable[str],
    pairs: Sequence[str],
    *,
    methods: Methods,
    seeds: int,
    folder: Path,
    base_dir: str,
) -> list[Run]:
    """The runs of a comparison, all checked and their data loaded before the first begins.

    Parameters
    ----------
    files: TOML files with run keys; a scenario is named by its key `name`, or else its file.
    pairs: `key=value`, set in every scenario in place of what its file says.
    methods: what is compared; if empty, the strategies of the files.
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
        settings = read_settings(file, pairs)
        plain = RunConfig.from_mapping(settings)
        scenario = plain.name or Path(file).stem
        if any(run.scenario == scenario for run in runs):
            raise UserError(f'{file}: another scenario is named "{scenario}", too')
        for method, keys in (methods or {plain.strategy: {}}).items():
            config = _of_method(method, settings, keys, base_dir)
            load_strategy(config.strategy)
            for seed in range(config.seed, config.seed + seeds):
                label = f"{scenario}-{_slug(method)}-seed-{seed}"
                one = replace(config, seed=seed, name=label, output_dir=str(folder / label))
                runs.append(Run(scenario, method, one))
    _check_folders(runs)
    for run in runs:
        if run.finished:
            _check_keys(run)
        else:
            for source in run.config.data_settings(base_dir).sources:
                load_domain(source, run.config.image_format)
    return runs


def _of_method(
    method: str, settings: Mapping[str, Any], keys: Mapping[str, Any], base_dir: str
) -> RunConfig:
    """The config of a method in a scenario with these settings."""
    pooled = keys.get(POOLED, False)
    own = {key: value for key, value in keys.items() if key != POOLED}
    try:
        config = RunConfig.from_mapping({**settings, **own})
    except UserError as error:
        raise UserError(f'method "{method}": {error}') from None
    return _pooled(config, base_dir) if pooled else config


def _pooled(config: RunConfig, base_dir: str) -> RunConfig:
    """One client for each domain, with as many images as the domain's clients have together.

    And as many iterations, to the nearest round.
    """
    if config.partition != "iid":  # another one would take labels from the one client, too
        raise UserError(f'{POOLED}: it takes partition="iid", not "{config.partition}"')
    clients, domains = config.num_clients or DEFAULT_CLIENTS, len(config.domains.split(","))
    sharing = clients // domains
    one = replace(
        config, num_clients=domains, max_client_images=sharing * config.max_client_images
    )
    rounds = config.num_server_rounds * sharing * _batches(config, base_dir, clients)
    return replace(one, num_server_rounds=max(1, round(rounds / _batches(one, base_dir, domains))))


def _batches(config: RunConfig, base_dir: str, clients: int) -> int:
    """Of the largest client."""
    sizes = label_counts(config.data_settings(base_dir), clients).sum(axis=1)
    return -(-int(sizes.max()) // config.batch_size)


def _slug(method: str) -> str:
    """A method's name in names of folders; of an own strategy, `module:Class`, the class."""
    name = method.rpartition(":")[2].lower()
    return "-".join(re.findall(r"[a-z0-9]+", name))


def _check_folders(runs: Iterable[Run]) -> None:
    taken: dict[Path, Run] = {}
    for run in runs:
        other = taken.setdefault(run.folder, run)
        if other is not run:
            raise UserError(
                f"{other} and {run} would both be in {run.folder}: leave one out, or give them "
                "different names"
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
    """The results of those runs that have finished, by scenario, method and domain."""
    published = tomllib.loads(PUBLISHED.read_text())
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.finished:
            groups.setdefault((run.scenario, run.method), []).append(run)
    rows: list[Row] = []
    for (scenario, method), of_method in groups.items():
        summaries = [json.loads((run.folder / "summary.json").read_text()) for run in of_method]
        theirs = published.get(scenario, {}) if all(map(_as_theirs, of_method)) else {}
        for domain in dict.fromkeys(domain for s in summaries for domain in s["domains"]):
            found = [_scores(s, domain) for s in summaries if domain in s["domains"]]
            shares = {name: value / 100 for name, value in theirs.get(domain, {}).items()}
            rows.append(Row(scenario, method, domain, _values(found), shares))
    return rows


def _as_theirs(run: Run) -> bool:
    """Whether this is what the authors published scores of: their method and their recipe."""
    config = run.config
    recipe = (config.scoring, config.score_on, config.utility_images)
    return config.strategy == "huscf" and recipe == (AUTHORS.name, "test", 30_000)


def _scores(summary: Mapping[str, Any], domain: str) -> dict[str, float]:
    """Of its cluster's generator, the mean over the domain's clients."""
    main = summary["domains"][domain]
    clusters = [main, *main.get("other_clusters", {}).values()]
    clients = [cluster["clients"] for cluster in clusters]
    flat = [
        {name: cluster["utility"][name] for name in _UTILITY}
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
    return found | {"adjusted_rand_index": summary["adjusted_rand_index"]}


def _values(seeds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for scores in seeds for name in scores)
    return {name: [scores[name] for scores in seeds if name in scores] for name in names}
