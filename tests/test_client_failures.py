"""Clients that fail or send what they should not, in whole runs in this process."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.errors import UserError
from huscf_flwr.nets import State
from huscf_flwr.procedure import ClientTraining, Steps
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from simulations.engine import Engine
from strategies import HuSCF

pytestmark = pytest.mark.usefixtures("few_steps")


class Failing(SplitGANClient):
    """Client 1 misbehaves from round 2 on, as the class attribute says."""

    how: Callable[["Failing", list[np.ndarray]], list[np.ndarray]]

    def begin(self, parameters: list[np.ndarray], config: dict[str, Any]) -> ClientTraining:
        if config["client"] == 1 and config["round"] >= 2:
            parameters = type(self).how(self, parameters)
        return super().begin(parameters, config)

    def finish(self, part: ClientTraining, config: dict[str, Any]) -> Any:
        found, size, metrics = super().finish(part, config)
        if config["client"] == 1 and config["round"] >= 2:
            found = type(self).how(self, found)
        return found, size, metrics


class WithFailing(HuSCF):
    client_class = Failing


def _raise(client: GANClient, arrays: list[np.ndarray]) -> list[np.ndarray]:
    raise OSError("the disk is full")


def _spoil(value: float) -> Callable[[GANClient, list[np.ndarray]], list[np.ndarray]]:
    def spoil(client: GANClient, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [np.full_like(a, value) if a.dtype == np.float32 else a for a in arrays]

    return spoil


@pytest.mark.parametrize(
    ("how", "message"),
    [(_raise, "the disk is full"), (_spoil(np.nan), "values from nan to nan")],
)
@pytest.mark.fault("a client that fails in a round", lost="its part of the round")
def test_a_client_that_fails_is_left_out_and_named(
    how: Any, message: str, folder: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Failing, "how", how, raising=False)
    engine = Engine(tiny(strategy="test_client_failures:WithFailing"), str(folder))
    strategy = engine.strategy
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        engine.run()
    rows = list(csv.DictReader((engine.report.folder / "clusters.csv").open()))
    members = {r: [row["client"] for row in rows if row["round"] == r] for r in "123"}
    assert members == {"1": ["0", "1", "2"], "2": ["0", "2"], "3": ["0", "2"]}
    assert any(message in line and "client" in line for line in caplog.messages)
    for model in strategy.models.values():
        assert all(torch.isfinite(value).all() for value in model.values())


class OnceBad(SplitGANClient):
    """Client 1 sends NaN in the first round, and is well again after it."""

    def half(self, state: State, config: dict[str, Any]) -> HeadsAndTails:
        half = super().half(state, config)
        if (config["client"], config["round"]) != (1, 1):
            return half

        class Bad(HeadsAndTails):
            def iteration(self, batch: Any) -> Steps:
                request = next(super().iteration(batch))
                yield {name: torch.full_like(t, torch.nan) for name, t in request.items()}

        half.__class__ = Bad
        return half


class WithOnceBad(HuSCF):
    client_class = OnceBad


def test_a_client_that_was_left_out_of_a_round_is_back_in_the_next(folder: Path) -> None:
    """Nothing of the round that it failed in stays with it."""
    engine = Engine(
        tiny(strategy="test_client_failures:WithOnceBad", num_server_rounds=2), str(folder)
    )
    engine.run()
    rows = list(csv.DictReader((engine.report.folder / "clusters.csv").open()))
    members = {r: [row["client"] for row in rows if row["round"] == r] for r in "12"}
    assert members == {"1": ["0", "2"], "2": ["0", "1", "2"]}


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.fault("all clients fail in a round", lost="a round")
def test_a_round_that_nobody_finishes_is_repeated(
    times: int, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice; then the run ends, and can be gone on with."""
    begin, tries = SplitGANClient.begin, dict.fromkeys(range(3), 0)

    def fail(self: GANClient, parameters: Any, config: Any) -> Any:
        client, tried = config["client"], tries[config["client"]]
        if config["round"] == 2 and tried < times:
            tries[client] += 1
            raise OSError("the disk is full")
        return begin(self, parameters, config)  # type: ignore[arg-type]

    monkeypatch.setattr(SplitGANClient, "begin", fail)
    engine = Engine(tiny(output_dir="out"), str(folder))
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        if times == 3:
            with pytest.raises(UserError, match=r"round 2: no client finished it"):
                engine.run()
        else:
            engine.run()
    rows = list(csv.DictReader((folder / "out" / "clusters.csv").open()))
    trained = [row["round"] for row in rows]
    assert trained == sorted(["1"] * 3 + (["2", "3"] * 3 if times == 2 else []))
    assert "it is repeated" in caplog.text
    assert list((folder / "out").glob("generator-cluster-*.safetensors"))
    last = "round-001" if times == 3 else "round-003"
    assert (folder / "out" / "checkpoints" / f"{last}.safetensors").exists()
