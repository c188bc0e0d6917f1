"""Comparing runs: scenario files, and the table of their results."""

import csv
from pathlib import Path

import pytest
from conftest import PROJECT, images, write_npz

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig, read_settings
from huscf_flwr.errors import UserError
from simulations.compare import Row, plan_runs, write_tables

SCENARIOS = sorted(PROJECT.glob("simulations/[hs]*.toml"))
SMALL = """\
name = "{name}"
domains = "one.npz,two.npz"
num-clients = 2
num-classes = 3
width = 2
batch-size = 4
local-epochs = 1
num-server-rounds = 1
utility-images = 100
"""


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_can_be_run_as_far_as_its_keys_go(file: Path) -> None:
    config = RunConfig.from_mapping(read_settings(str(file), []))
    assert config.name == file.stem


def test_each_scenario_of_the_paper_has_a_small_twin() -> None:
    names = {path.stem for path in SCENARIOS}
    for number in range(1, 7):
        paper, twin = (
            RunConfig.from_mapping(read_settings(str(PROJECT / f"simulations/{name}.toml"), []))
            for name in (f"scenario-{number}", f"scenario-{number}-offline")
        )
        assert {paper.name, twin.name} <= names and paper.partition == twin.partition


def test_a_comparison_is_one_table_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        write_npz(tmp_path / f"{name}.npz", images(20, seed=seed))
    (tmp_path / "a.toml").write_text(SMALL.format(name="a"))
    command = ["compare", "a.toml", "--strategy", "huscf,fedgan", "--seeds", "2", "--out", "out"]
    assert main(command) == 0
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert table in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [(row["scenario"], row["strategy"], row["domain"], row["seeds"]) for row in rows] == [
        ("a", "huscf", "one", "2"),
        ("a", "huscf", "two", "2"),
        ("a", "fedgan", "one", "2"),
        ("a", "fedgan", "two", "2"),
    ]
    assert all(0 <= float(row["accuracy_mean"]) <= 1 for row in rows)
    runs = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert runs == [f"a-{name}-seed-{seed}" for name in ("fedgan", "huscf") for seed in (0, 1)]
    before = (tmp_path / "out" / runs[0] / "summary.json").stat().st_mtime_ns
    assert main(command) == 0  # nothing is trained again
    assert (tmp_path / "out" / runs[0] / "summary.json").stat().st_mtime_ns == before


def test_the_table_has_mean_spread_and_what_was_published(tmp_path: Path) -> None:
    rows = [
        Row("scenario-1", "huscf", "mnist", {"accuracy": [0.9, 0.92]}, {"accuracy": 0.9787}),
        Row("mine", "huscf", "rings", {"accuracy": [0.5, 0.7]}, {}),
    ]
    text = write_tables(rows, tmp_path)
    assert "| scenario-1 | huscf | mnist | 0.910 ± 0.014 (0.979) |" in text
    assert "| mine | huscf | rings | 0.600 ± 0.141 |" in text
    first, second = csv.DictReader((tmp_path / "comparison.csv").open())
    assert (first["accuracy_published"], second["accuracy_published"]) == ("0.9787", "")


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        files.append(str(tmp_path / f"{name}.toml"))
        Path(files[-1]).write_text('name = "same"')
    with pytest.raises(UserError, match=r'b\.toml: another scenario is named "same"'):
        plan_runs(files, [], 1, tmp_path)
