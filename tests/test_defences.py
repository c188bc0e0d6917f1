"""What one client can do is bounded by the others; simulations/attacks.py says how well."""

import csv
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import (
    BATCH,
    CUTS,
    SHAPES,
    SPEC,
    bytes_of,
    plans,
    segments,
    stream,
    tiny,
    trainer,
)
from flwr.common import Config

from huscf_flwr.config import RunConfig
from huscf_flwr.defences.collapse import collapsed, variety
from huscf_flwr.defences.guard import Guard
from huscf_flwr.defences.guarded import Guarded, Known
from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.defences.sizes import bounded_shares, counted_sizes
from huscf_flwr.nets import each_output, initial_state
from huscf_flwr.nets.saved import load_tensors
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.spot_check import SpotCheck
from huscf_flwr.split.usual import usual_frames
from huscf_flwr.tensors import Tensors
from simulations.attacks import ATTACKS, BadClient, WithBadClients
from simulations.engine import Engine
from strategies import HuSCF
from strategies.updates import Combined, Update


@pytest.mark.usefixtures("few_steps")
def test_what_is_usual_is_what_clients_send_at_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever their nets are cut, and whatever their images are."""
    ratios: list[float] = []
    bounded = Guard.bounded

    def watched(
        guard: Guard, exchange: int, requests: Any, usual: Any, peers: Any, name_of: str
    ) -> dict[int, Tensors]:
        for client, tensors in requests.items():
            for name, tensor in tensors.items():
                own = float(tensor.square().mean().sqrt())
                ratios.append(own / usual[client][exchange][name].level)
        return bounded(guard, exchange, requests, usual, peers, name_of)

    monkeypatch.setattr(Guard, "bounded", watched)
    cuts = "1-1-1-1,2-2-2-2,1-2-2-1"
    Engine(tiny(cuts=cuts, num_server_rounds=1, output_dir="out"), str(folder)).run()
    assert len(ratios) >= 3 * 8
    assert min(ratios) > 0.5 and max(ratios) < 2


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_the_server_knows_where_gradients_should_point(cut: Cut) -> None:
    """At a round's beginning those of the discriminator's step exactly, others about."""
    state = initial_state(SPEC, 0)
    nets = whole_nets(SPEC, state)
    server, client, spot_check = segments(), trainer(cut, state), SpotCheck(SPEC, nets, cut, 0.25)
    runner = InProcessRunner(cohort=None)
    watched: list[tuple[int, float]] = []

    class Watching(Guard):
        def spot_check(
            self, client: int, sent: Any, expected: Any, rows: torch.Tensor, name_of: str, _: Any
        ) -> None:
            for name, due in expected.items():
                cosine = torch.cosine_similarity(sent[name][rows].flatten(), due.flatten(), dim=0)
                watched.append((Exchange[name_of], float(cosine)))

    frames, _ = usual_frames(SPEC, nets, [cut], batch_size=BATCH, seed=0)
    half = Guarded(server, Watching(), {0: Known(frames[cut], spot_check)}, [0])
    runner.open_round(1, plans(half, [cut], 1))
    with ThreadPoolExecutor(1) as workers:
        assert not runner.train({0: ClientTraining(client, stream(0).__getitem__, 1)}, workers)
    assert [exchange for exchange, _ in watched] == [2, 2, 4, 5]
    assert min(cosine for exchange, cosine in watched if exchange == 2) > 0.999
    assert min(cosine for _, cosine in watched) > 0.5

    real, labels, *_ = stream(0)[0]
    outputs = each_output(nets.disc.values(), real, labels)
    sent = {"real": outputs[cut.disc(SHAPES).head - 1].detach()}
    belief = spot_check.belief(Exchange.DISCRIMINATE, sent)
    assert belief == pytest.approx(float(outputs[-1].detach().sigmoid().mean()) - 0.25, abs=1e-6)
    assert spot_check.belief(Exchange.JUDGE, sent) is None


def test_sizes_and_weights_are_bounded() -> None:
    assert counted_sizes({"a": 100, "b": 10**9, "c": 140}) == {"a": 100, "b": 700, "c": 140}
    assert counted_sizes({"a": 5}) == {"a": 5}
    assert bounded_shares({0: 0.8, 1: 0.15, 2: 0.05}) == pytest.approx(
        {0: 0.5, 1: 0.375, 2: 0.125}
    )
    assert bounded_shares({0: 1.0, 1: 1e-30, 2: 0.0})[0] == 0.5
    assert bounded_shares({0: 1.0, 1: 0.0, 2: 0.0}) == {0: 0.5, 1: 0.25, 2: 0.25}
    assert bounded_shares({0: 0.9, 1: 0.1}) == {0: 0.9, 1: 0.1}
    assert bounded_shares({0: 0.4, 1: 0.3, 2: 0.3}) == {0: 0.4, 1: 0.3, 2: 0.3}


def test_a_generator_whose_images_are_all_alike_has_collapsed() -> None:
    spec = RunConfig(width=4).settled(".").net_spec
    state = initial_state(spec, 0)
    alike = {name: v * 0 if v.is_floating_point() else v for name, v in state.items()}
    broken = {name: v * np.nan if v.is_floating_point() else v for name, v in state.items()}
    values = {0: variety(spec, state), 1: variety(spec, alike), 2: variety(spec, broken)}
    assert values[0] > 0.001 and values[1] == 0 and np.isnan(values[2])
    assert collapsed({0: values[0], 1: values[0], 2: values[0]}, values) == [1, 2]
    assert collapsed({}, values) == [2]
    assert collapsed({0: values[0]}, {7: 0.0}) == [7]


@pytest.mark.usefixtures("few_steps")
class TestRuns:
    @pytest.mark.parametrize("attack", ATTACKS)
    @pytest.mark.fault("one client of four attacks", lost="its part of the training")
    def test_an_attack_ends_nothing(
        self, folder: Path, attack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rounds are finished with the honest ones; who is far out of line is left out."""
        epochs = 1 if attack == "lying size" else 3  # of ten times as many images as it has
        rows, engine = self._attacked(folder, monkeypatch, attack, local_epochs=epochs)
        assert {int(row["client"]) for row in rows if int(row["round"]) == 4} >= {0, 1, 2}
        blatant = attack in ("huge", "flipped", "flipped generator's", "scaled", "huge parameters")
        assert not (blatant and any(int(row["client"]) == 3 for row in rows))
        model = engine.strategy.models[0]
        assert all(v.isfinite().all() for v in model.values() if v.is_floating_point())
        assert variety(engine.strategy.config.net_spec, model) > 0.001

    def test_who_is_out_of_line_in_three_rounds_stays_out(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            self._attacked(folder, monkeypatch, "huge parameters")
        text = "client 3 is left out: out of line in 3 rounds: in the last of them it moved"
        assert sum(text in record.getMessage() for record in caplog.records) == 1
        assert not any("round 4: client 3" in r.getMessage() for r in caplog.records)

    def test_who_trains_on_shuffled_labels_is_left_out(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By nets that know digits; the others are in every round."""
        rows, engine = self._attacked(
            folder, monkeypatch, "shuffled labels", domains="digits", clusters="domains",
            num_classes=10, width=8, batch_size=32, local_epochs=4, num_server_rounds=6,
            devices="paper",
        )  # fmt: skip
        there = Counter(int(row["client"]) for row in rows)
        assert {client: there[client] for client in range(3)} == dict.fromkeys(range(3), 6)
        assert there[3] < 6
        assert engine.strategy.defences.guard.refused.keys() <= {3}

    def test_without_defences_it_is_the_method_alone(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows, _ = self._attacked(folder, monkeypatch, "scaled", defences=False)
        assert sum(int(row["client"]) == 3 for row in rows) == 4

    @staticmethod
    def _attacked(
        folder: Path, monkeypatch: pytest.MonkeyPatch, attack: str, **settings: Any
    ) -> tuple[list[dict[str, str]], Engine]:
        monkeypatch.setattr(BadClient, "attack", attack)
        monkeypatch.setattr(BadClient, "bad", 1)
        config = tiny(
            **{
                "strategy": f"{__name__}:Attacked",
                "evaluate_every": 1000,
                "clusters": "1",
                "num_clients": 4,
                "num_server_rounds": 4,
                "local_epochs": 3,
                "output_dir": "out",
                **settings,
            }
        )
        engine = Engine(config, str(folder))
        engine.run()
        return list(csv.DictReader((folder / "out" / "clusters.csv").open())), engine


class Attacked(WithBadClients):
    """Ends without scores."""

    def finish(self) -> None:
        """Nothing is written."""


class SpoiltOnce(HuSCF):
    """Averages to nothing in round 2 as long as client 3 is in it."""

    attempts: ClassVar[list[list[int]]] = []
    begun: ClassVar[list[object]] = []
    """With what levels of the guard the attempts at round 2 began."""

    def open_round(
        self, server_round: int, clients: list[ClientInfo], iterations: int
    ) -> dict[int, Config]:
        if server_round == 2:
            self.begun.append(self.defences.guard.state())
        return super().open_round(server_round, clients, iterations)

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        found = super().combine(server_round, updates)
        members = [update.info.number for update in updates]
        if server_round == 2:
            self.attempts.append(members)
            if 3 in members:
                self.defences.guard.clipped[3] += 1
                for model in found.models.values():
                    model.update({n: 0 * v for n, v in model.items() if n.startswith("gen.")})
        return found


@pytest.mark.usefixtures("few_steps")
@pytest.mark.fault("a round that ends in nets that generate nothing", lost="a round")
def test_a_round_that_ends_in_nothing_is_repeated_without_whoever_caused_it(folder: Path) -> None:
    SpoiltOnce.attempts.clear()
    SpoiltOnce.begun.clear()
    config = tiny(strategy=f"{__name__}:SpoiltOnce", num_clients=4, clusters="1", output_dir="out")
    engine = Engine(config, str(folder))
    engine.run()
    assert SpoiltOnce.attempts == [[0, 1, 2, 3], [0, 1, 2]]
    assert SpoiltOnce.begun[1] == SpoiltOnce.begun[0]
    rows = list(csv.DictReader((folder / "out" / "clusters.csv").open()))
    by_round = [sorted(int(r["client"]) for r in rows if r["round"] == str(n)) for n in (1, 2, 3)]
    assert by_round == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3]]
    assert variety(config.net_spec, engine.strategy.models[0]) > 0.001


@pytest.mark.usefixtures("few_steps")
def test_honest_clients_of_very_unequal_data_are_not_touched(folder: Path) -> None:
    """Runs end in the same bytes with defences and without; nobody is left out."""
    ends = []
    for defences in (True, False):
        run = folder / f"out-{defences}"
        config = RunConfig(
            domains="digits,letters,textures",
            partition="dirichlet",
            dirichlet_alpha=0.1,
            num_clients=9,
            max_client_images=120,
            width=4,
            local_epochs=2,
            num_server_rounds=3,
            evaluate_every=100,
            utility_images=100,
            defences=defences,
            output_dir=str(run),
        )
        Engine(config, str(folder)).run()
        ends.append(bytes_of(load_tensors(run / "checkpoints" / "round-003.safetensors")[0]))
        assert len(list(csv.DictReader((run / "clusters.csv").open()))) == 3 * 9
    assert ends[0] == ends[1]
