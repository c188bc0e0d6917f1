"""How fast the same work goes unsplit, in-process, and by `flwr run`; memory; predicted times;
what defences cost, and what a client does; how long scoring takes.

    python -m simulations.benchmark             client iterations per second, three ways
    python -m simulations.benchmark --memory    peak memory of 8 and of 64 in-process clients
    python -m simulations.benchmark --latency   predicted and measured time of an iteration
    python -m simulations.benchmark --defences  time of rounds with them, by that without
    python -m simulations.benchmark --evaluation   seconds of scoring the default run
    python -m simulations.benchmark --clients   time and memory of one of 8, 64 and 1,000 clients

Each measurement has a process of its own, so that none sees another's threads or memory. A client
iteration is one batch through one step of both nets. Starting Ray is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from simulations import many_clients
from simulations.results import half_interval

ROUNDS, EPOCHS, CLIENTS = 3, 10, 8
_TURNS = 8
_FEDERATION = f"num-supernodes={CLIENTS} client-resources-num-cpus=1 init-args-num-cpus=4"
PROJECT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "num-server-rounds": ROUNDS,
    "local-epochs": EPOCHS,
    "utility-images": 100,
    "evaluate-every": ROUNDS,
}


def plain() -> float:
    """Client iterations per second of whole nets trained one after the other, plain PyTorch."""
    from huscf_flwr.config import RunConfig
    from huscf_flwr.data.batches import BatchStream
    from huscf_flwr.data.draws import seeded
    from huscf_flwr.data.partition import client_data
    from huscf_flwr.nets import initial_state, net_shapes
    from huscf_flwr.nets.unsplit import UnsplitTrainer

    config = RunConfig().settled(".")
    shapes, state = net_shapes(config.net_spec), initial_state(config.net_spec, config.seed)
    work = []
    for client in range(CLIENTS):
        _, data = client_data(config.data_settings("."), client=client, clients=CLIENTS)
        trainer = UnsplitTrainer(
            config.net_spec, shapes, state, learning_rate=config.learning_rate
        )
        stream = BatchStream(
            data,
            batch_size=config.batch_size,
            latent_size=shapes.latent_size,
            draws=seeded(config.seed, client),
        )
        work.append((trainer, stream))
    largest = max(len(stream) for _, stream in work)
    iterations = EPOCHS * -(-largest // config.batch_size)
    started = time.monotonic()
    for round_ in range(ROUNDS):
        for trainer, stream in work:
            batches = stream.starting_at(round_ * iterations)
            for index in range(iterations):
                trainer.iteration(batches(index))
    return ROUNDS * CLIENTS * iterations / (time.monotonic() - started)


def in_process(folder: Path, clients: int = CLIENTS, **settings: object) -> dict[str, Any]:
    """The summary of a run of `huscf train`."""
    pairs = [f"{k.replace('_', '-')}={v}" for k, v in {**SETTINGS, **settings}.items()]
    command = [sys.executable, "-m", "huscf_flwr.cli", "train", f"num-clients={clients}", *pairs]
    _run(command, folder, dict(os.environ))
    return _summary(folder)


def flwr_run(folder: Path, **settings: object) -> dict[str, Any]:
    """The summary of a run of `flwr run` on four Ray workers, as `make demo` has them."""
    output = folder / "flwr"
    pairs = " ".join(f"{key}={value!r}" for key, value in {**SETTINGS, **settings}.items())
    command = [
        str(Path(sys.executable).with_name("flwr")),
        *("run", str(PROJECT), "local", "--stream"),
        *("--federation-config", _FEDERATION),
        *("--run-config", f"{pairs} output-dir='{output}'"),
    ]
    # A SuperLink that runs already keeps its own.
    settings_of_flower = {
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    # Not in `folder`, which will be deleted: the SuperLink that this starts lives on where it was
    # started, and without that folder later runs end before they begin.
    _run(command, Path(tempfile.gettempdir()), {**os.environ, **settings_of_flower})
    return json.loads((output / "summary.json").read_text())  # type: ignore[no-any-return]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs" / "latest" / "summary.json").read_text())  # type: ignore[no-any-return]


def _compare_speed() -> None:
    command = [sys.executable, "-m", "simulations.benchmark", "--plain"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    base = float(done.stdout)
    print(f"{'':28}{'client iterations/s':>20}{'of plain':>10}")
    print(f"{'plain PyTorch, unsplit':28}{base:20.1f}{1:10.2f}", flush=True)
    for label, measure in (("in-process", in_process), ("flwr run, four workers", flwr_run)):
        with tempfile.TemporaryDirectory() as folder:
            speed = measure(Path(folder))["iterations_per_second"]
        print(f"{label:28}{speed:20.1f}{speed / base:10.2f}", flush=True)


def _compare_memory() -> None:
    for clients in (8, 64):
        with tempfile.TemporaryDirectory() as folder:
            summary = in_process(
                Path(folder), clients, num_server_rounds=2, local_epochs=3, evaluate_every=2
            )
        print(
            f"{clients:3} in-process clients: peak {summary['peak_memory_mb']['server']} MiB",
            flush=True,
        )


def _compare_latency() -> None:
    print(f"{'seconds of an iteration':28}{'predicted':>12}{'measured':>12}{'ratio':>8}")
    for label, measure in (("in-process", in_process), ("flwr run, over gRPC", flwr_run)):
        with tempfile.TemporaryDirectory() as folder:
            latency = measure(Path(folder), devices="measured")["latency"]
        predicted, measured = latency["predicted_s"], latency["measured_s"]
        print(
            f"{label:28}{predicted:12.3f}{measured:12.3f}{measured / predicted:8.2f}", flush=True
        )


def _compare_defences() -> None:
    """In turns, so that what else the machine does is the same for both."""
    ratios = []
    for _ in range(_TURNS):
        speeds = []
        for on in ("false", "true"):
            with tempfile.TemporaryDirectory() as folder:
                speeds.append(in_process(Path(folder), defences=on)["iterations_per_second"])
        ratios.append(speeds[0] / speeds[1])
        print(f"{speeds[1]:6.1f} client iterations/s, {speeds[0]:.1f} without", flush=True)
    half = half_interval(ratios)
    print(f"times as long with defences: {statistics.fmean(ratios):.3f} +- {half:.3f}")


def _time_evaluation() -> None:
    """Of generators that were not trained, which takes as long."""
    from huscf_flwr.config import RunConfig
    from huscf_flwr.evaluation.scorer import Scorer
    from huscf_flwr.nets import initial_state
    from huscf_flwr.nets.generator import Generator
    from huscf_flwr.system.cpu import cores, keep_freed_memory

    keep_freed_memory()
    config = RunConfig().settled(".")
    generator = Generator(config.net_spec, initial_state(config.net_spec, config.seed))
    work = [(source.name, generator) for source in config.sources(".")]
    scorer = Scorer(config, ".", cores())
    for label, full in (("the first time", False), ("in between", False), ("at the end", True)):
        started = time.monotonic()
        scorer.scores(work, full=full)
        print(f"scores {label:16}{time.monotonic() - started:8.2f} s", flush=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--memory", action="store_true", help="compare memory, not speed")
    parser.add_argument("--latency", action="store_true", help="compare predictions, not speed")
    parser.add_argument("--defences", action="store_true", help="what defences cost, not speed")
    parser.add_argument("--evaluation", action="store_true", help="how long scoring takes")
    parser.add_argument("--clients", action="store_true", help="what a client costs, not speed")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(plain())
    elif options.memory:
        _compare_memory()
    elif options.latency:
        _compare_latency()
    elif options.defences:
        _compare_defences()
    elif options.evaluation:
        _time_evaluation()
    elif options.clients:
        many_clients.compare()
    else:
        _compare_speed()


if __name__ == "__main__":
    main()
