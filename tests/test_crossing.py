"""What crosses between clients and server, all of it, is what each strategy says; and costs."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BATCH, RATE, SHAPES, SPEC, stream, tiny
from flwr.common import (
    Config,
    EvaluateIns,
    EvaluateRes,
    FitRes,
    GetPropertiesIns,
    NDArrays,
    parameters_to_ndarrays,
)
from torch.utils.flop_counter import FlopCounterMode

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.mixing import LABELS, MIX_IMAGES, MIX_LABELS
from huscf_flwr.clients.whole import ACTIVATION
from huscf_flwr.nets import GEN, initial_state, net_shapes, whole_net
from huscf_flwr.nets.two_generators import CENTRAL, TwoGeneratorsTrainer, renamed
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.planning.costs import net_costs
from huscf_flwr.procedure import ClientTraining, Steps
from simulations.engine import BegunTraining, Engine, InProcessClient
from strategies.base import GANStrategy
from strategies.costs import ONE_GENERATOR, TWO_GENERATORS, Passes, iteration_flops
from strategies.crossing import What

FRAMES = {
    **{
        (exchange, name): What.ACTIVATIONS
        for exchange in ("GENERATE", "DISCRIMINATE", "JUDGE")
        for name in ("fake", "real")
    },
    **{
        (exchange, name): What.GRADIENTS
        for exchange in ("DISCRIMINATOR_STEP", "JUDGE_GRADIENT", "GENERATOR_STEP")
        for name in ("fake", "real")
    },
    ("GENERATE", "trained"): What.GENERATED,
    ("GENERATE", "judged"): What.GENERATED,
    ("GENERATE", "trained-labels"): What.GENERATED_LABELS,
    ("GENERATE", "judged-labels"): What.GENERATED_LABELS,
    ("FEEDBACK", "judged"): What.FEEDBACK,
}
BYTES = {
    MIX_IMAGES: What.GENERATED,
    MIX_LABELS: What.GENERATED_LABELS,
    "outputs": What.PROBE,
}
PARAMETERS = ("gen.", "disc.", "central.")
OTHERS = {ACTIVATION: What.MEAN_ACTIVATION, LABELS: What.LABEL_SET}
LONGEST = 4000  # of a text: certificates are as long


class Recorder:
    """Sees all that goes to clients of this process, and all that comes from them."""

    def __init__(self) -> None:
        self.seen: set[tuple[What, bool, bool]] = set()
        """What, whether a client sent it, whether in an iteration."""
        self.arrays: list[np.ndarray] = []
        self.strategy: GANStrategy | None = None

    def kept(self, what: What, array: Any, *, sent: bool, in_iterations: bool) -> None:
        self.seen.add((what, sent, in_iterations))
        self.arrays.append(np.asarray(array))

    def parameters(self, names: list[str], arrays: NDArrays, *, sent: bool) -> None:
        for name, array in zip(sorted(names), arrays, strict=True):
            what = What.PARAMETERS if name.startswith(PARAMETERS) else OTHERS[name]
            self.kept(what, array, sent=sent, in_iterations=False)

    def scalars(self, values: Mapping[str, Any], *, sent: bool) -> None:
        for name, value in values.items():
            if isinstance(value, bytes):
                array = np.load(io.BytesIO(value), allow_pickle=False)
                self.kept(BYTES[name], array, sent=sent, in_iterations=False)
            else:
                assert isinstance(value, int | float) or len(value) < LONGEST, name

    def steps(self, half: Any, steps: Steps) -> Steps:
        request = next(steps, None)
        for exchange in half.exchanges:
            assert request is not None
            for name, tensor in request.items():
                assert tensor.is_floating_point()
                what = FRAMES[exchange.name, name]
                self.kept(what, tensor.detach().numpy(), sent=True, in_iterations=True)
            answer = yield request
            for name, tensor in answer.items():
                what = FRAMES[exchange.name, name]
                self.kept(what, tensor.detach().numpy(), sent=False, in_iterations=True)
            try:
                request = steps.send(answer)
            except StopIteration as done:
                return done.value
        raise AssertionError("an iteration with more exchanges than it says")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    begin, finish = InProcessClient.begin, BegunTraining.finish
    evaluate, properties = InProcessClient.evaluate, InProcessClient.get_properties
    begun = GANClient.begin

    def watched_begin(
        client: InProcessClient, parameters: NDArrays, config: Config
    ) -> BegunTraining:
        started = begin(client, parameters, config)
        found.parameters(started.client.handed(config), parameters, sent=False)
        found.scalars(config, sent=False)
        return started

    def watched_training(client: GANClient, parameters: Any, config: Any) -> ClientTraining:
        part = begun(client, parameters, config)
        half, iteration = part.half, part.half.iteration
        if half.exchanges:
            half.iteration = lambda batch: found.steps(half, iteration(batch))  # type: ignore[method-assign]
        return part

    def watched_finish(started: BegunTraining) -> FitRes:
        result = finish(started)
        assert found.strategy is not None
        clients = found.strategy.roster.clients.values()
        (info,) = (info for info in clients if info.number == started.number)
        arrays = parameters_to_ndarrays(result.parameters)
        found.parameters(list(found.strategy.due(info)), arrays, sent=True)
        found.scalars(result.metrics, sent=True)
        return result

    def watched_evaluate(client: InProcessClient, ins: EvaluateIns, **more: Any) -> EvaluateRes:
        arrays = parameters_to_ndarrays(ins.parameters)
        found.parameters([f"disc.{i}" for i in range(len(arrays))], arrays, sent=False)
        found.scalars(ins.config, sent=False)
        result = evaluate(client, ins, **more)
        found.scalars(result.metrics, sent=True)
        return result

    def watched_properties(client: InProcessClient, ins: GetPropertiesIns, *more: Any) -> Any:
        found.scalars(ins.config, sent=False)
        result = properties(client, ins, *more)
        found.scalars(result.properties, sent=True)
        return result

    monkeypatch.setattr(InProcessClient, "get_properties", watched_properties)
    monkeypatch.setattr(InProcessClient, "begin", watched_begin)
    monkeypatch.setattr(InProcessClient, "evaluate", watched_evaluate)
    monkeypatch.setattr(BegunTraining, "finish", watched_finish)
    monkeypatch.setattr(GANClient, "begin", watched_training)
    return found


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "strategy", ["huscf", "fedgan", "clustered-fedgan", "mdgan", "fedsplitgan", "pflgan", "hflgan"]
)
def test_what_crosses_is_what_the_strategy_says(
    strategy: str, folder: Path, recorder: Recorder
) -> None:
    config = tiny(
        strategy=strategy, clusters="auto", num_server_rounds=3, hfl_edges=1, output_dir="out"
    )
    engine = Engine(config, str(folder))
    recorder.strategy = engine.strategy
    engine.run()

    said = {
        (one.what, sent, one.in_iterations)
        for one in engine.strategy.crosses
        for sent, really in ((True, one.sent), (False, one.received))
        if really
    }
    assert recorder.seen == said

    # And none of it is an image that anybody has; nor are labels sent in iterations.
    stored = [np.load(folder / f"{name}.npz")["images"] for name in ("one", "two")]
    real = np.concatenate(stored).reshape(60, -1) / 127.5 - 1
    size = real.shape[1]
    for array in recorder.arrays:
        if array.size and array.size % size == 0:
            rows = array.reshape(-1, size)
            rows = rows / 127.5 - 1 if array.dtype == np.uint8 else rows
            nearest = np.abs(rows[:, None] - real[None]).max(axis=2).min()
            assert nearest > 1e-3


@pytest.mark.parametrize(
    ("trainer", "passes"),
    [(UnsplitTrainer, ONE_GENERATOR), (TwoGeneratorsTrainer, TWO_GENERATORS)],
)
def test_a_clients_operations_are_those_that_torch_counts(
    trainer: type[UnsplitTrainer], passes: Mapping[str, Passes]
) -> None:
    state = initial_state(SPEC, 0)
    twice = state | renamed(state, GEN, CENTRAL)
    client = trainer(SPEC, SHAPES, twice, learning_rate=RATE)
    batch = stream(0)[0]
    with FlopCounterMode(display=False) as counter:
        client.iteration(batch)
    costs = net_costs(SPEC, BATCH)
    found = iteration_flops(costs, whole_net(SHAPES), passes)
    assert counter.get_total_flops() == found


@pytest.mark.usefixtures("few_steps")
def test_what_a_round_costs_by_hand(folder: Path) -> None:
    """FedGAN's clients get and return the nets; each array has a header of 128 bytes."""
    config = tiny(strategy="fedgan", num_server_rounds=1, devices="paper", output_dir="out")
    made = Engine(config, str(folder)).run()
    summary = json.loads((made / "summary.json").read_text())
    state = initial_state(config.net_spec, 0)
    due = sum(value.numel() * value.element_size() + 128 for value in state.values())
    costs = summary["costs_per_client_and_round"]
    assert costs["sent_bytes"] == costs["received_bytes"] == due
    latency = summary["latency"]
    iterations = round(latency["predicted_round_s"] / latency["predicted_s"])
    once = iteration_flops(
        net_costs(config.net_spec, BATCH), whole_net(net_shapes(config.net_spec)), ONE_GENERATOR
    )
    assert costs["gflops"] == pytest.approx(iterations * once / 1e9)
