"""Scenario files: the paper's settings, and what was published of them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PROJECT

from huscf_flwr.config import RunConfig
from huscf_flwr.data.sources import split_names
from huscf_flwr.keys import read_settings
from simulations.compare import Run
from simulations.results import (
    PUBLISHED,
    rows_of,
)

FOUR = "mnist,fashion-mnist,kmnist,notmnist"


TWO = "mnist,fashion-mnist"


PAPER = {
    "scenario-1": {"domains": "mnist", "partition": "iid"},
    "scenario-2": {"domains": "mnist", "partition": "non-iid"},
    "scenario-3": {"domains": TWO, "partition": "iid"},
    "scenario-4": {"domains": TWO, "partition": "non-iid"},
    "scenario-5": {"domains": TWO, "partition": "highly-non-iid"},
    "scenario-6": {"domains": FOUR, "num-clients": 80, "max-client-images": 750},
    "higher-resolution-natural": {"domains": "cifar10,svhn"},
    "higher-resolution-medical": {"domains": "bloodmnist,dermamnist", "num-classes": 8},
}
"""What each scenario has of its own; the rest is what all have in common."""


SMALL_GREY = {
    "num-clients": 100,
    "max-client-images": 600,
    "image-size": 28,
    "channels": 1,
    "cohort": "all",
}


LARGE_COLOUR = {"num-clients": 40, "max-client-images": 0, "image-size": 32, "channels": 3}


COMMON = {
    "partition": "iid",
    "num-classes": 10,
    "width": 64,
    "num-server-rounds": 50,
    "local-epochs": 5,
    "batch-size": 64,
    "devices": "paper",
    "utility-images": 30_000,
}


SCENARIOS = [
    path
    for path in sorted(PROJECT.glob("simulations/*.toml"))
    if "name" in tomllib.loads(path.read_text())
]


def scenario(name: str) -> RunConfig:
    return RunConfig.from_mapping(read_settings(str(PROJECT / "simulations" / f"{name}.toml"), []))


@pytest.mark.parametrize("name", [path.stem for path in SCENARIOS])
def test_every_scenario_can_be_run_as_far_as_its_keys_go(name: str) -> None:
    assert scenario(name).name


@pytest.mark.parametrize("name", PAPER)
def test_a_scenario_has_the_papers_settings(name: str) -> None:
    shape = SMALL_GREY if name.startswith("scenario") else LARGE_COLOUR
    expected = {**COMMON, **shape, **PAPER[name]}
    if name.startswith("scenario"):
        expected["clusters"] = str(len(split_names(str(expected["domains"]))))
    found = scenario(name).as_dict()
    assert {key: found[key] for key in expected} == expected


def test_each_scenario_of_the_paper_has_a_small_twin() -> None:
    for number in range(1, 7):
        paper, twin = scenario(f"scenario-{number}"), scenario(f"scenario-{number}-offline")
        assert paper.partition == twin.partition


def test_what_was_published_is_of_domains_that_the_scenarios_have() -> None:
    published = tomllib.loads(PUBLISHED.read_text())
    assert published.keys() == {f"scenario-{number}" for number in range(1, 7)}
    for name, domains in published.items():
        assert list(domains) == split_names(scenario(name).domains)


def test_what_was_published_is_beside_the_same_scenario_only(tmp_path: Path) -> None:
    utility = dict.fromkeys(("accuracy", "precision", "recall", "f1", "fpr"), 0.5)
    domains = {"mnist": {"cluster": 0, "clients": 1, "utility": utility}}
    (tmp_path / "summary.json").write_text(
        json.dumps({"domains": domains, "adjusted_rand_index": 1.0})
    )
    theirs = replace(scenario("scenario-1"), output_dir=str(tmp_path), seed=3)
    for config, published in ((theirs, True), (replace(theirs, width=8), False)):
        (row,) = rows_of([Run("scenario-1", "Ours", config)], {})
        assert bool(row.published) == published
