"""What is compared: scenarios, methods and seeds, a run for each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.data.partition import label_counts
from huscf_flwr.data.sources import load_domain, split_names
from huscf_flwr.errors import UserError, did_you_mean
from huscf_flwr.keys import read_settings, read_toml
from simulations.engine import DEFAULT_CLIENTS
from strategies import chosen

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
    found = read_toml(path)
    for name, keys in found.items():
        if not isinstance(keys, dict):
            raise UserError(f'{path}: "{name}" is no table of run keys')
        for key in keys:
            if key != POOLED and (meant := did_you_mean(key, [POOLED])):
                raise UserError(f'{path}: method "{name}": unknown key "{key}":{meant}')
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
        if Path(scenario).name != scenario:
            raise UserError(f'{file}: name="{scenario}": it names folders, and cannot be a path')
        if any(run.scenario == scenario for run in runs):
            raise UserError(f'{file}: another scenario is named "{scenario}", too')
        configs = {
            method: _of_method(method, settings, keys, base_dir)
            for method, keys in (methods or {plain.strategy: {}}).items()
        }
        for number in range(seeds):  # all methods first: what is there can be compared
            for method, config in configs.items():
                seed = config.seed + number
                label = f"{scenario}-{_slug(method)}-seed-{seed}"
                one = replace(config, seed=seed, name=label, output_dir=str(folder / label))
                runs.append(Run(scenario, method, one))
    _check_folders(runs)
    for run in runs:
        if run.finished:
            _check_keys(run)
        else:
            for source in run.config.sources(base_dir):
                load_domain(source, run.config.settled(base_dir).image_format)
    return runs


def _of_method(
    method: str, settings: Mapping[str, Any], keys: Mapping[str, Any], base_dir: str
) -> RunConfig:
    """The config of a method in a scenario with these settings."""
    pooled = keys.get(POOLED, False)
    own = {key: value for key, value in keys.items() if key != POOLED}
    try:
        _, config = chosen(RunConfig.from_mapping({**settings, **own}))
    except UserError as error:
        raise UserError(f'method "{method}": {error}') from None
    return _pooled(config, base_dir) if pooled else config


def _pooled(config: RunConfig, base_dir: str) -> RunConfig:
    """One client for each domain, with as many images as the domain's clients have together.

    And as many iterations, to the nearest round.
    """
    if config.partition != "iid":  # another one would take labels from the one client, too
        raise UserError(f'{POOLED}: it takes partition="iid", not "{config.partition}"')
    clients, domains = config.num_clients or DEFAULT_CLIENTS, len(split_names(config.domains))
    sharing = clients // domains
    if sharing * domains != clients:
        raise UserError(f"{POOLED}: {clients} clients are no multiple of {domains} domains")
    one = replace(
        config, num_clients=domains, max_client_images=sharing * config.max_client_images
    )
    rounds = config.num_server_rounds * sharing * _batches(config, base_dir, clients)
    return replace(one, num_server_rounds=max(1, round(rounds / _batches(one, base_dir, domains))))


def _batches(config: RunConfig, base_dir: str, clients: int) -> int:
    """Of the largest client."""
    data = config.settled(base_dir).data_settings(base_dir)
    sizes = label_counts(data, clients).sum(axis=1)
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
        if key != "output-dir"  # the folder may have been moved
        and had[key] != planned[key]
        and not (key in run.config.found and not planned[key])  # then the data said it
    ]
    if others:
        raise UserError(
            f"{run.folder} holds a run with {', '.join(others)}: set these keys as they were, "
            "name another folder by --out, or delete this one to train it again"
        )
