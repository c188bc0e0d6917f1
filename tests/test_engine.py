"""Whole runs in this process: determinism, what frames hold, what a run leaves."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bytes_of, tiny
from flwr.app import Context, RecordDict
from flwr.common import Config, NDArrays
from torch import Tensor

import huscf_flwr
from huscf_flwr.cli import main
from huscf_flwr.clients.kept_state import ClientState
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state, to_arrays
from huscf_flwr.procedure import Steps, advance
from huscf_flwr.runner import in_process
from huscf_flwr.tensors import Tensors
from simulations.engine import BegunTraining, Engine, InProcessClient
from strategies import HuSCF

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.mark.parametrize("cohort", ["1", "2", "all"])
def test_two_runs_end_in_identical_bytes(cohort: str, folder: Path) -> None:
    found = []
    for name in ("first", "second"):
        made = Engine(tiny(cohort=cohort, output_dir=name), str(folder)).run()
        files = sorted(made.glob("*.safetensors")) + sorted(made.glob("samples/*.png"))
        files += sorted(made.glob("checkpoints/**/*.safetensors"))
        rows = [line.rsplit(",", 1)[0] for line in (made / "metrics.csv").read_text().splitlines()]
        found.append(([(f.name, f.read_bytes()) for f in files], rows))
    assert len(found[0][0]) > 4
    assert found[0] == found[1]


def test_another_seed_gives_another_run(folder: Path) -> None:
    configs = [tiny(seed=seed, num_server_rounds=1) for seed in (0, 1)]
    made = [Engine(config, str(folder)).run() for config in configs]
    one, two = (f.joinpath("generator-cluster-0.safetensors").read_bytes() for f in made)
    assert one != two


@pytest.mark.parametrize("strategy", ["huscf", "fedgan"])
def test_two_rounds_of_a_client_are_one_uninterrupted_run(strategy: str, folder: Path) -> None:
    """With its own parameters given back, the state in `context.state` makes rounds seamless."""

    def final(rounds: int, epochs: int) -> dict[str, bytes]:
        config = tiny(
            strategy=strategy, num_clients=1, num_server_rounds=rounds, local_epochs=epochs,
            clusters="1", domains="one.npz",
        )  # fmt: skip
        engine = Engine(config, str(folder))
        engine.run()
        return bytes_of(engine.strategy.models[0])

    assert final(2, 3) == final(1, 6)


def test_optimiser_state_and_place_in_the_data_live_in_the_context(folder: Path) -> None:
    config = tiny(strategy="fedgan")
    context = Context(
        run_id=0,
        node_id=1,
        node_config={"data": str(folder / "one.npz")},
        state=RecordDict(),
        run_config=config.as_dict(),
    )
    client = WholeGANClient(context)
    start = to_arrays(initial_state(config.net_spec, 0))
    client.fit(start, {"client": 0, "round": 1, "iterations": 2})
    assert context.state["progress"]["iterations"] == 2
    moments = ClientState.unpacked(context.state["optimisers"]["moments"]).moments
    assert moments["gen.0.embedding.weight/step"].item() == 2
    once, _, _ = client.fit(start, {"client": 0, "round": 2, "iterations": 2})
    again, _, _ = client.fit(start, {"client": 0, "round": 2, "iterations": 2})  # it was spoilt
    assert all(map(np.array_equal, once, again))
    assert context.state["progress"]["iterations"] == 4


def test_a_run_leaves_what_it_should(folder: Path) -> None:
    made = Engine(tiny(name="small"), str(folder)).run()
    assert made.parent == folder / "runs" and made.name.endswith("-small")
    assert (folder / "runs" / "latest").resolve() == made
    config = (made / "config.toml").read_text()
    assert RunConfig.from_mapping(tomllib.loads(config)) == tiny(name="small")
    assert f"# torch {torch.__version__.split('+')[0]}" in config

    with (made / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [row["round"] for row in metrics[:2]] == ["1", "1"]  # two domains, one cluster
    assert {row["domain"] for row in metrics} == {"one", "two"}
    assert float(metrics[-1]["image_score"]) >= 1 and float(metrics[-1]["seconds"]) > 0
    with (made / "clusters.csv").open() as file:
        clusters = list(csv.DictReader(file))
    assert len(clusters) == 9
    last = [row for row in clusters if row["round"] == "3"]
    for name in {row["cluster"] for row in last}:
        inside = [float(row["weight"]) for row in last if row["cluster"] == name]
        assert sum(inside) == pytest.approx(1, abs=1e-4)
    assert [row["domain"] for row in last] == ["one", "two", "one"]

    summary = json.loads((made / "summary.json").read_text())
    assert summary["rounds"] == 3 and summary["clients"] == 3 and summary["clusters"] == 2
    assert -1 <= summary["adjusted_rand_index"] <= 1
    assert set(summary["domains"]) == {"one", "two"}
    assert 0 <= summary["domains"]["one"]["utility"]["accuracy"] <= 1
    assert summary["iterations_per_second"] > 0 and summary["bytes_per_client_iteration"] > 0
    assert len(list((made / "samples").glob("round-00[123]-cluster-0.png"))) == 3
    with pytest.raises(UserError, match="holds a run already"):
        Engine(tiny(output_dir=str(made)), str(folder)).run()


def test_a_run_of_another_strategy_is_not_gone_on_with(folder: Path) -> None:
    """Not even of one with the same blocks in the same places."""
    Engine(tiny(strategy="mdgan", num_server_rounds=1, output_dir="first"), str(folder)).run()
    for strategy in ("huscf", "fedgan", "fedsplitgan", "pflgan", "hflgan"):
        with pytest.raises(UserError, match="not a run of this strategy, but of MDGAN"):
            Engine(tiny(strategy=strategy, resume="first"), str(folder))


@pytest.mark.parametrize("strategy", ["huscf", "fedgan"])
def test_a_run_goes_on_from_its_checkpoint(strategy: str, folder: Path) -> None:
    """Nets, clusters and the server's optimisers are those that the first run ended with."""
    first = Engine(tiny(strategy=strategy, num_server_rounds=2, output_dir="first"), str(folder))
    first.run()
    second = Engine(tiny(strategy=strategy, resume="first", output_dir="more"), str(folder))
    resumed, ended = second.strategy, first.strategy
    assert resumed.rounds_before == 2 and resumed.assignment == ended.assignment
    for cluster, model in ended.models.items():
        assert bytes_of(resumed.models[cluster]) == bytes_of(model)
    went_on, stopped = resumed.checkpoint(2).servers, ended.checkpoint(2).servers
    assert {c: bytes_of(s) for c, s in went_on.items()} == {
        c: bytes_of(s) for c, s in stopped.items()
    }
    second.run()
    rows = list(csv.DictReader((folder / "more" / "metrics.csv").open()))
    assert {row["round"] for row in rows} == {"1", "2", "3"}
    with pytest.raises(UserError, match="dealt its data to 3 clients"):
        Engine(tiny(strategy=strategy, resume="first", num_clients=4), str(folder))
    as_before = Engine(tiny(resume="first", num_clients=0, strategy=strategy), str(folder))
    assert len(as_before._clients) == 3
    with pytest.raises(UserError, match="that run has 2 rounds; num-server-rounds must be above"):
        Engine(tiny(strategy=strategy, resume="first", num_server_rounds=2), str(folder))
    with pytest.raises(UserError, match="no checkpoint in it"):
        Engine(tiny(strategy=strategy, resume="none"), str(folder))
    with pytest.raises(UserError, match="another net"):
        Engine(tiny(strategy=strategy, resume="first", width=3), str(folder))


def test_a_trained_generator_loads_and_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Engine(tiny(num_server_rounds=1), str(folder)).run()
    file = made / "generator-cluster-0.safetensors"
    generator = huscf_flwr.load_generator(file)
    some, labels = generator.sample(7, seed=3)
    assert torch.equal(some, generator.sample(7, seed=3)[0])
    assert not torch.equal(some, generator.sample(7)[0])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]

    out = folder / "x.npz"
    assert main(["generate", str(file), "-n", "5", "--label", "2", "--out", str(out)]) == 0
    with np.load(out) as arrays:
        assert arrays["images"].shape == (5, 16, 16) and arrays["images"].dtype == np.uint8
        assert arrays["labels"].tolist() == [2] * 5
    assert main(["generate", str(file), "-n", "9", "--out", str(folder / "x.png")]) == 0
    assert (folder / "x.png").read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        (["--label", "3", "--out", str(out)], "label 3: this generator knows 0 to 2"),
        (["--out", "x.gif"], "must end in .png, .npz or .wav"),
        (["-n", "0", "--out", str(out)], "cannot generate 0 images"),
    ):
        assert main(["generate", str(file), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert main(["generate", str(folder / "one.npz"), "--out", str(out)]) == 1
    assert "cannot be read as a generator" in capsys.readouterr().err


class Recorder:
    """Keeps all tensors that are exchanged, either way, and every image and label at home."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exchanged: list[Tensors] = []
        self.private: list[Tensor] = []

        def recorded(steps: Steps, answer: Tensors | None = None) -> Tensors | None:
            request = advance(steps, answer)
            self.exchanged += [tensors for tensors in (answer, request) if tensors is not None]
            return request

        monkeypatch.setattr(in_process, "advance", recorded)
        from huscf_flwr.split import heads_and_tails as module

        run_blocks = module.run_blocks

        def watched(blocks: list[torch.nn.Module], *inputs: Tensor) -> Tensor:
            out = run_blocks(blocks, *inputs)
            seen = [value for value in (*inputs, out) if value.shape[1:] == (1, 16, 16)]
            self.private += [value.detach().clone() for value in seen]
            if len(inputs) == 2:
                self.private.append(inputs[1].clone())
            return out

        monkeypatch.setattr(module, "run_blocks", watched)


def test_no_frame_holds_an_image_or_a_label(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    Engine(tiny(num_server_rounds=2), str(folder)).run()
    labels = [value for value in recorder.private if value.dtype == torch.int64]
    pictures = [value for value in recorder.private if value.is_floating_point()]
    assert len(recorder.exchanged) > 100 and len(labels) > 50 and len(pictures) > 50
    forbidden = {picture.numpy().tobytes() for image in pictures for picture in image}
    for tensors in recorder.exchanged:
        assert tensors.keys() <= {"fake", "real"}
        for value in tensors.values():
            assert value.dtype == torch.float32  # labels are integers
            assert value.shape[0] == 4 and value.shape[1:] != (1, 16, 16)
            assert value.shape[1:].numel() > 1  # one number a sample could be its label
            for row in value.detach():
                assert row.contiguous().numpy().tobytes() not in forbidden


class Even(HuSCF):
    """Every client a cluster of its own from round 2 on, and equal weights."""

    def assign(self, server_round, updates):
        return {u.info.number: u.info.number if server_round > 1 else 0 for u in updates}

    def weigh(self, server_round, updates):
        numbers = [update.info.number for update in updates]
        return dict.fromkeys(numbers, 1 / len(numbers)), {}


def test_own_steps_replace_the_strategys(folder: Path) -> None:
    engine = Engine(tiny(strategy="test_engine:Even", num_server_rounds=2), str(folder))
    engine.run()
    report = engine.report
    rows = list(csv.DictReader((report.folder / "clusters.csv").open()))
    assert [(row["cluster"], row["weight"]) for row in rows] == [
        *[("0", "0.333333")] * 3,
        *[("0", "1"), ("1", "1"), ("2", "1")],
    ]
    domains = json.loads((report.folder / "summary.json").read_text())["domains"]
    assert domains["one"]["cluster"] == 0 and domains["two"].keys() < domains["one"].keys()
    assert 0 <= domains["one"]["other_clusters"]["2"]["utility"]["accuracy"] <= 1


def test_a_clients_message_has_its_own_blocks_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters travel as plain arrays: the heads and tails, and nothing of the server's."""
    engine = Engine(tiny(num_clients=1, clusters="1", domains="one.npz", cuts="1-2-2-1",
                         num_server_rounds=1), str(folder))  # fmt: skip
    sent: list[NDArrays] = []
    begin = InProcessClient.begin

    def watched(client: InProcessClient, parameters: NDArrays, config: Config) -> BegunTraining:
        sent.append(parameters)
        return begin(client, parameters, config)

    monkeypatch.setattr(InProcessClient, "begin", watched)
    engine.run()
    model = engine.strategy.models[0]
    held = [
        name for name in sorted(model)
        if tuple(name.split(".")[:2]) in {("gen", "0"), ("gen", "3"), ("gen", "4"),
                                          ("disc", "0"), ("disc", "1"), ("disc", "4")}
    ]  # fmt: skip
    shapes = [array.shape for array in sent[0]]
    assert shapes == [tuple(model[name].shape) for name in held]


@pytest.mark.parametrize("blocks", ["shared", "cluster"])
def test_scores_of_what_clients_really_have(blocks: str, folder: Path) -> None:
    """Where clusters have server blocks of their own, all clients have the cluster's generator.

    Where they share them, a client that holds fewer blocks has the server's version of the others.
    """
    cuts = "1-1-1-1,1-1-1-1,2-2-1-1,2-2-1-1"  # one of each in either domain
    config = tiny(server_blocks=blocks, cuts=cuts, num_clients=4, clusters="domains")
    engine = Engine(config, str(folder))
    made = engine.run()
    one = json.loads((made / "summary.json").read_text())["domains"]["one"]
    by_cut = one["by_cut"]
    assert {ends: scores["clients"] for ends, scores in by_cut.items()} == {
        "1-1": 2,
        "2-2": 2,
    } or (
        sum(scores["clients"] for scores in by_cut.values()) < 4  # of two clusters
    )
    strategy = engine.strategy
    assert isinstance(strategy, HuSCF)
    for info in strategy.roster.clients.values():
        cluster = strategy.assignment[info.number]
        own, whole = strategy.generator_of(info, cluster), strategy.models[cluster]
        assert info.cut is not None
        others = [n for n, value in own.items() if not torch.equal(value, whole[n])]
        held = {f"gen.{index}." for index in info.cut.gen(strategy.shapes).server}
        assert all(name.startswith(tuple(held)) for name in others)
        assert bool(others) == (blocks == "shared" and info.cut.gen_head == 1)
    for scores in by_cut.values():
        same = all(scores[name] == one[name] for name in ("image_score", "utility"))
        assert same or blocks == "shared"
    assert "The generators that clients really have" in (made / "report.html").read_text()


def test_the_authors_score_what_the_first_client_has(folder: Path) -> None:
    cuts = "1-1-1-1,1-1-1-1,2-2-1-1,2-2-1-1"
    settings = {"cuts": cuts, "num_clients": 4, "clusters": "domains", "server_blocks": "shared"}
    made = Engine(tiny(scoring="authors", **settings), str(folder)).run()
    one = json.loads((made / "summary.json").read_text())["domains"]["one"]
    first, other = one["by_cut"]["1-1"], one["by_cut"]["2-2"]
    assert one["image_score"] == first["image_score"] != other["image_score"]
    assert one["utility"] == first["utility"]
