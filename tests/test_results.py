"""Tables of results by hand: means, intervals, differences."""

import json
from pathlib import Path

import pytest
from conftest import table

from huscf_flwr.config import RunConfig
from simulations.compare import Run
from simulations.comparison_page import difference_cell
from simulations.results import (
    Row,
    differences,
    half_interval,
    mean_and_interval,
    rows_of,
)
from simulations.tables import write_tables


def test_differences_are_of_the_same_seeds_by_hand() -> None:
    rows = [
        Row("s", "A", "d", {"accuracy": {0: 0.5, 1: 0.75, 2: 0.5}}, {}, {}),
        Row("s", "B", "d", {"accuracy": {0: 0.25, 1: 0.25, 3: 0.0}}, {}, {}),
        Row("s", "A", "e", {"accuracy": {0: 1.0}}, {}, {}),
        Row("t", "B", "d", {"accuracy": {0: 1.0}}, {}, {}),
    ]
    (found,) = differences(rows, ["accuracy"])
    assert (found.method, found.other, found.domain) == ("A", "B", "d")
    assert found.values == [0.25, 0.5]


@pytest.mark.parametrize(
    ("values", "score", "says"),
    [
        ([0.2, 0.21, 0.2], "accuracy", "better"),
        ([0.2, 0.21, 0.2], "frechet_distance_classifier", "worse"),
        ([-0.2, -0.21, -0.2], "frechet_distance_classifier", "better"),
        ([0.2, -0.1, 0.2], "accuracy", ""),
        ([0.2], "accuracy", ""),
    ],
)
def test_a_difference_says_something_where_its_interval_leaves_out_zero(
    values: list[float], score: str, says: str
) -> None:
    assert difference_cell(values, score)["says"] == says


def test_the_table_has_mean_spread_and_what_was_published(tmp_path: Path) -> None:
    rows = [
        Row(
            "scenario-1",
            "huscf",
            "mnist",
            {"accuracy": {0: 0.9, 1: 0.92}, "fpr": {0: 0.00241, 1: 0.00243}},
            {"accuracy": 0.9787, "fpr": 0.0024},
            {},
        ),
        Row("mine", "A & B", "rings", {"accuracy": {0: 0.5}, "kernel_distance": {0: 228.94}}, {},
            {1: "no memory"}),
        Row("mine", "C", "", {}, {}, {0: "no such file"}),
    ]  # fmt: skip
    text = write_tables(rows, [], tmp_path)
    assert "| 0.9100 ± 0.13 (0.9787) | 0.002420 ± 0.00013 (0.0024) |  |" in text
    assert "| mine | A & B | rings | 0.5000 |  | 228.9 |" in text
    assert "mine with A & B failed: seed 1: no memory" in text
    assert "mine with C failed: seed 0: no such file" in text
    latex = (tmp_path / "comparison.tex").read_text()
    assert r"huscf & mnist & $0.9100 \pm 0.13 (0.9787)$" in latex
    assert r"A \& B & rings & $0.5000$" in latex
    first, second, third = table(tmp_path)
    assert (third["seeds"], third["failed"]) == ("0", "seed 0: no such file")
    assert (first["accuracy_published"], second["accuracy_published"]) == ("0.9787", "")
    assert (first["kernel_distance_mean"], second["kernel_distance_mean"]) == ("", "228.94")


def test_seeds_may_differ_in_their_domains_and_scores(tmp_path: Path) -> None:
    found = [
        {"one": {"image_score": 1.0}},
        {"one": {"image_score": 3.0, "frechet_distance": 5.0}, "two": {"image_score": 4.0}},
    ]
    runs = []
    utility = dict.fromkeys(("accuracy", "precision", "recall", "f1", "fpr"), 0.5)
    for seed, scores in enumerate(found):
        runs.append(Run("a", "huscf", RunConfig(seed=seed, output_dir=str(tmp_path / str(seed)))))
        domains = {
            name: {"clients": 1, **values, "utility": utility} for name, values in scores.items()
        }
        runs[-1].folder.mkdir()
        (runs[-1].folder / "summary.json").write_text(
            json.dumps({"domains": domains, "adjusted_rand_index": 1.0})
        )
    one, two = rows_of(runs, {})
    assert one.values["image_score"] == {0: 1, 1: 3}
    assert one.values["frechet_distance"] == {1: 5}
    assert two.values["image_score"] == {1: 4} and "frechet_distance" not in two.values
    write_tables([one, two], [], tmp_path)
    assert [row["seeds"] for row in table(tmp_path)] == ["2", "1"]


def test_a_domains_row_is_the_mean_over_its_clients(tmp_path: Path) -> None:
    run = Run("a", "mine", RunConfig(output_dir=str(tmp_path)))
    utility = dict.fromkeys(("accuracy", "precision", "recall", "f1", "fpr"), 0.5)
    most = {"cluster": 1, "clients": 3, "image_score": 4.0, "utility": utility}
    other = {"clients": 1, "image_score": 8.0, "utility": {**utility, "accuracy": 0.1}}
    domains = {"one": {**most, "other_clusters": {"0": other}}}
    (tmp_path / "summary.json").write_text(
        json.dumps({"domains": domains, "adjusted_rand_index": 1.0})
    )
    (row,) = rows_of([run], {})
    assert row.values["image_score"] == {0: 5.0}
    assert row.values["accuracy"] == {0: pytest.approx(0.4)}


def test_the_interval_is_students() -> None:
    # Of three values, 4.303 standard errors: 4.303 * 1 / sqrt(3).
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(2.4841, rel=1e-4)
    assert mean_and_interval([1.0, 2.0, 3.0]) == "2.000 ± 2.5"
    assert mean_and_interval([12390.0, 12390.0]) == "12390 ± 0"
