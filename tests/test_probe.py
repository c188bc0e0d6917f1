"""The probe by which clusters are found: what clients answer, and what the server makes of it."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CUTS, SHAPES, SPEC, bytes_of, images, tiny, write_npz
from flwr.app import Context, RecordDict
from flwr.common import Code, EvaluateRes, Status, parameters_to_ndarrays

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.clustering.probe import first_outputs, go_on
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import to_unit
from huscf_flwr.nets import PartialGAN, initial_state
from huscf_flwr.report.records import ClientInfo
from simulations.engine import Engine
from strategies.grouping import GroupingStrategy
from strategies.probing import Probing

OK = Status(Code.OK, "")
IMAGES = to_unit(images(20).images)
CONFIG = RunConfig(num_classes=3, channels=1, width=2, batch_size=4)
STATE = initial_state(SPEC, 0)


def disc(blocks: range) -> PartialGAN:
    return PartialGAN(SPEC, STATE, gen=(), disc=blocks).eval()


@pytest.mark.parametrize("held", [1, 2, 3])
def test_client_and_server_compute_what_one_net_does(held: int) -> None:
    """And that is the mean over all labels, behind the first block."""
    sent = first_outputs(disc(range(held)), IMAGES, SPEC.num_classes)
    whole = disc(range(3)).disc
    labels = [torch.full((20,), label) for label in range(SPEC.num_classes)]
    with torch.no_grad():
        any_label = sum(whole["0"](IMAGES, of_class) for of_class in labels) / SPEC.num_classes
        expected = whole["2"](whole["1"](any_label))
    torch.testing.assert_close(go_on(disc(range(3)), sent, held), expected)


def answer(probing: Probing, info: ClientInfo, data: Path) -> EvaluateRes:
    """What a node with these images answers, by way of Flower's messages."""
    node = Context(0, 0, {"data": str(data)}, RecordDict(), CONFIG.as_dict())
    ((_, asked),) = probing.instructions({None: info}, STATE, ".")  # type: ignore
    made = (SplitGANClient if info.cut else WholeGANClient)(node)
    _, count, metrics = made.evaluate(parameters_to_ndarrays(asked.parameters), asked.config)
    assert count == 79
    return EvaluateRes(OK, 0.0, count, metrics)


def test_activations_are_the_same_wherever_nets_are_cut(tmp_path: Path) -> None:
    """Which of its images a client shows depends on its number alone."""
    path = write_npz(tmp_path / "own.npz", images(100))
    found = []
    for cut in (CUTS[0], CUTS[-1], None):
        probing = Probing(CONFIG, SHAPES)
        info = ClientInfo(7, 79, "", cut=cut)
        assert not probing.take([info], {7: answer(probing, info, path)})
        found.append(probing.found[7])
    assert found[0].shape == (79, *SHAPES.disc[2])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def _file(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FEATURES = SHAPES.disc[0]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (None, "it has no outputs"),
        ("text", "it has no outputs"),
        (b"\x93NUMPY", "no array"),
        (_file(np.array([{}])), "no array: ValueError: Object arrays"),
        (_file(np.zeros((2, *FEATURES), np.float32)), "has shape"),
        (_file(np.zeros((129, *FEATURES), np.float32)), "has shape"),
        (_file(np.zeros((5, *FEATURES))), "has dtype torch.float64"),
        (_file(np.full((5, *FEATURES), np.nan, np.float32)), "values from nan"),
    ],
)
def test_bad_probes_are_named_and_left_out(outputs: Any, message: str) -> None:
    infos = [ClientInfo(number, 5, "", cut=CUTS[0]) for number in (0, 1)]
    good = _file(np.ones((6, *FEATURES), np.float32))  # of more images than it counts for
    results = {
        number: EvaluateRes(OK, 0.0, 5, {} if value is None else {"outputs": value})
        for number, value in enumerate((outputs, good))
    }
    probing = Probing(CONFIG, SHAPES)
    probing.instructions({}, STATE, ".")
    reasons = probing.take(infos, results)
    assert list(probing.found) == [1] and list(reasons) == [0]
    assert reasons[0].startswith("client 0 returned a bad probe: ") and message in reasons[0]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("strategy", ["huscf", "clustered-fedgan"])
def test_domains_are_found_when_the_warm_up_ends(strategy: str, tmp_path: Path) -> None:
    """A client that cannot be probed stays where it was, and is asked again."""
    config = tiny(
        strategy=strategy,
        domains="digits,textures",
        num_clients=4,
        num_classes=10,
        width=4,
        batch_size=16,
        max_client_images=64,
        local_epochs=6,
        num_server_rounds=4,
        clusters="auto",
    )
    engine = Engine(config, str(tmp_path))
    unsteady = engine._clients[3]
    evaluate, failures = unsteady.evaluate, [1]

    def fails_once(*args: Any, **options: Any) -> EvaluateRes:
        if failures:
            raise ConnectionError(failures.pop())
        return evaluate(*args, **options)

    unsteady.evaluate = fails_once  # type: ignore[method-assign]
    made = engine.run()
    clusters: dict[str, list[str]] = {}
    with (made / "clusters.csv").open() as file:
        for row in csv.DictReader(file):
            clusters.setdefault(row["round"], []).append(row["cluster"])
    assert clusters["1"] == ["0"] * 4
    one, other, *_ = clusters["2"]
    assert one != other and clusters["2"] == [one, other, one, "0"]
    assert clusters["3"] == clusters["4"] == [one, other] * 2

    # A run that goes on from here knows the discriminator, and who has been probed by it.
    saved = engine.strategy.checkpoint(4)
    assert isinstance(engine.strategy, GroupingStrategy)
    resumed = Probing(config, engine.strategy.shapes)
    resumed.restore(saved.probe)
    assert list(resumed.found) == [0, 1, 2, 3]
    assert bytes_of(resumed.state()) == bytes_of(engine.strategy._probing.state())
    again = tiny(**{**vars(config), "resume": str(made), "num_server_rounds": 5})
    went_on = Engine(again, str(tmp_path)).strategy
    assert bytes_of(went_on.checkpoint(4).probe) == bytes_of(saved.probe)


@pytest.mark.usefixtures("few_steps")
def test_a_run_without_a_probe_goes_on_with_one(tmp_path: Path) -> None:
    write_npz(tmp_path / "one.npz", images(30, seed=1))
    write_npz(tmp_path / "two.npz", images(30, seed=2))
    first = Engine(tiny(clusters="1", num_server_rounds=2, output_dir="first"), str(tmp_path))
    first.run()
    for clusters, expected in (
        ("auto", [0, 0, 0]),
        ("clients", [0, 1, 2]),
        ("domains", [0, 1, 0]),
    ):
        config = tiny(clusters=clusters, resume="first", output_dir=clusters)
        engine = Engine(config, str(tmp_path))
        assert engine.strategy.checkpoint(2).probe == {}
        engine.run()
        infos = sorted(engine.strategy.roster.clients.values(), key=lambda info: info.number)
        assert [engine.strategy.cluster_of(info) for info in infos] == expected
