"""Clients with data of their own score their cluster's generator, and only numbers leave."""

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images, write_npz
from flwr.app import Context, RecordDict
from flwr.common import EvaluateIns, EvaluateRes

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.nets import NetSpec, initial_state
from huscf_flwr.report.writer import RunReport
from simulations.engine import InProcessClient, train_together
from strategies import HuSCF

pytestmark = pytest.mark.usefixtures("few_steps")
SPEC = NetSpec(image_size=16, channels=1, num_classes=3, width=2)


SETTINGS: dict[str, Any] = {
    "num_classes": 3,
    "channels": 1,
    "width": 2,
    "batch_size": 4,
    "local_epochs": 1,
    "num_server_rounds": 2,
    "evaluate_every": 1,
    "utility_images": 100,
    "clusters": "1",
    "num_clients": 3,
    "cuts": "1-1-1-1",
}


def client_context(config: RunConfig, number: int, data: Path) -> Context:
    return Context(
        run_id=0,
        node_id=number,
        node_config={"data": str(data)},
        state=RecordDict(),
        run_config=config.as_dict(),
    )


def run_on_own_data(
    folder: Path, sizes: tuple[int, ...], strategy_class: type[HuSCF] = HuSCF, **settings: Any
) -> tuple[Path, list[EvaluateRes]]:
    """Train clients with files of so many images; the run's folder, and what evaluating gave."""
    config = RunConfig(**{**SETTINGS, "num_clients": len(sizes), **settings})
    report = RunReport(config, str(folder))
    strategy = strategy_class(config, report, str(folder), serve=False)
    answers: list[EvaluateRes] = []

    class Watched(InProcessClient):
        def evaluate(self, ins: EvaluateIns, **rest: Any) -> EvaluateRes:
            answers.append(super().evaluate(ins, **rest))
            return answers[-1]

    clients = []
    for number, size in enumerate(sizes):
        data = write_npz(folder / f"own-{number}.npz", images(size, seed=number))
        context = client_context(config, number, data)
        clients.append(Watched(context, strategy.client_class))
    train_together(strategy, clients)
    return report.folder, answers


def test_clients_score_on_their_own_images_and_only_numbers_leave(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        folder, answers = run_on_own_data(tmp_path, (20, 40, 4))
    assert len(answers) == 4  # of two clients in two rounds: the third has one held-out image
    for answer in answers:
        assert all(type(value) in (int, float) for value in answer.metrics.values())
        assert answer.num_examples in (3, 9)
    assert any("own-2 has 1 held-out image" in line for line in caplog.messages)
    assert any("client 2 returned no scores" in line for line in caplog.messages)

    summary = json.loads((folder / "summary.json").read_text())
    found = summary["clusters_scores"]["0"]
    assert summary["domains"] == {} and found["clients"] == 2
    last = [answer for answer in answers if "accuracy" in answer.metrics]
    assert len(last) == 2
    flat = {**found, **found["utility"]}
    for name in ("image_score", "frechet_distance_classifier", "accuracy", "fpr"):
        mean = sum(a.num_examples * float(a.metrics[name]) for a in last) / 12
        assert flat[name] == pytest.approx(mean)
    how = {
        "n_generated": 100,
        "n_real": 12,
        "extractor": "classifiers of the clients' own training images",
        "seed": 0,
    }
    details = found["details"]
    assert details["utility"] == how
    real = details["frechet_distance_classifier"].pop("real")
    assert real >= 0 and details["frechet_distance_classifier"] == how
    page = (folder / "report.html").read_text()
    value = found["frechet_distance_classifier"]
    assert f"<td>{value:#.4g} ({real:#.4g})</td>" in page and "utility: accuracy" in page
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [(row["round"], row["domain"], row["cluster"]) for row in rows] == [
        ("1", "", "0"),
        ("2", "", "0"),
    ]
    for row in rows:
        assert float(row["image_score"]) >= 1 and float(row["seconds"]) > 0
        assert float(row["frechet_distance_classifier"]) >= 0
    assert float(rows[1]["kernel_distance_classifier"]) == pytest.approx(
        found["kernel_distance_classifier"], rel=1e-4
    )


def test_a_page_has_the_scores_of_its_last_round(tmp_path: Path) -> None:
    """Before the clients score round 2, the page shows what they found in round 1."""
    pages: list[str] = []

    class Looking(SplitGANClient):
        def evaluate(self, parameters: Any, config: Any) -> Any:
            page = tmp_path / "runs" / "latest" / "report.html"
            pages.append(page.read_text() if page.exists() else "")
            return super().evaluate(parameters, config)

    class WithLooking(HuSCF):
        client_class = Looking

    run_on_own_data(tmp_path, (20, 20), WithLooking)
    assert pages[:2] == ["", ""]
    assert all("image score (higher is better)" in page for page in pages[2:])


class _Odd(SplitGANClient):
    """Client 0 returns scores that are none."""

    def evaluate(self, parameters: Any, config: Any) -> Any:
        loss, size, found = super().evaluate(parameters, config)
        if config["client"] == 0:
            found["image_score"] = math.nan
        return loss, size, found


class _WithOdd(HuSCF):
    client_class = _Odd


def test_bad_scores_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        folder, _ = run_on_own_data(tmp_path, (20, 40), _WithOdd, num_server_rounds=1)
    assert any("client 0 returned bad scores" in line for line in caplog.messages)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["clusters_scores"]["0"]["clients"] == 1


def test_a_run_in_which_no_client_can_score_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: GANClient, parameters: Any, config: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(GANClient, "evaluate", fail)
    folder, _ = run_on_own_data(tmp_path, (20, 20), num_server_rounds=1)
    assert json.loads((folder / "summary.json").read_text())["clusters_scores"] == {}
    (row,) = csv.DictReader((folder / "metrics.csv").open())
    assert row["image_score"] == "" and float(row["seconds"]) > 0


def test_missing_classes_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = images(40)
    data.labels[:] = 0
    data.labels[0] = 1
    write_npz(tmp_path / "own.npz", data)
    config = RunConfig(**SETTINGS)
    client = SplitGANClient(client_context(config, 0, tmp_path / "own.npz"))
    gen = initial_state(SPEC, 0)
    arrays = [gen[name].numpy() for name in sorted(gen) if name.startswith("gen.")]
    _, size, found = client.evaluate(arrays, {"client": 0, "utility": False})
    assert size == 8 and found["missing_classes"] == 1 and "accuracy" not in found
    with pytest.raises(RuntimeError, match="client 7: "):
        client.evaluate(arrays[:-1], {"client": 7, "utility": False})


@pytest.mark.parametrize(
    ("labels", "detail"), [([0, 1, 7, 0], "labels from 0 to 7"), ([0], "has 1 training images")]
)
def test_what_is_wrong_with_own_data_stays_on_the_node(
    labels: list[int], detail: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = LabelledImages(images(len(labels)).images, torch.tensor(labels))
    path = write_npz(tmp_path / "secret.npz", data)
    client = SplitGANClient(client_context(RunConfig(**SETTINGS), 0, path))
    told = [str(client.get_properties({})["error"])]
    gen = initial_state(SPEC, 0)
    arrays = [gen[name].numpy() for name in sorted(gen) if name.startswith("gen.")]
    for ask in (
        lambda: client.fit([], {"client": 3, "iterations": 1, "cut": "1-1-1-1"}),
        lambda: client.evaluate(arrays, {"client": 3, "utility": False}),
    ):
        with pytest.raises(RuntimeError) as raised:
            ask()
        told.append(str(raised.value))
    assert told[0] == "its own data cannot be used; its log says why"
    assert told[1:] == [f"client 3: UserError: {told[0]}"] * 2
    assert sum("secret.npz" in line for line in caplog.messages) == 3
    assert detail in caplog.messages[0]


def test_clients_that_add_noise_train_and_do_not_score(tmp_path: Path) -> None:
    folder, answers = run_on_own_data(tmp_path, (20, 40), image_noise=0.5, label_epsilon=2.0)
    assert not answers
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["clusters_scores"] == {} and summary["local_privacy"]["label_epsilon"] == 2.0
    assert "epsilon 2320 at delta 1e-05 for an image" in (folder / "report.html").read_text()
