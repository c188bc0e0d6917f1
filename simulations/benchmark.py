"""How fast this is, what it costs, and where the time goes.

    python -m simulations.benchmark              all of it, in an hour
    python -m simulations.benchmark speed        some of it

    speed       client iterations per second: unsplit, in-process, by `flwr run`; medians of three
    memory      peak memory of 8 and of 64 in-process clients
    latency     predicted and measured time of an iteration
    defences    time of rounds with them, by that without
    evaluation  seconds of scoring the default run
    clients     time and memory of one of 8, 64 and 1,000 clients
    launches    what an iteration launches on a GPU, counted on the processor
    runners     how much faster two runners are than one

`speed` draws where the cores' time goes by each road, as runs/benchmark.png: see `parts`. Runs
that are compared have a process of their own each, so that none sees another's threads or memory.
A client iteration is one batch through one step of both nets. Starting Ray is not counted.
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

from simulations import launches, many_clients, parts, runners
from simulations.results import half_interval

ROUNDS, EPOCHS, CLIENTS = 3, 10, 8
_TURNS, _DEFENCES_TURNS = 3, 8
_FEDERATION = f"num-supernodes={CLIENTS} client-resources-num-cpus=1 init-args-num-cpus=4"
PROJECT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "num-server-rounds": ROUNDS,
    "local-epochs": EPOCHS,
    "utility-images": 100,
    "evaluate-every": ROUNDS,
}


def plain() -> parts.Parts:
    """Of whole nets trained one after the other, plain PyTorch."""
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
    watch, computed_s = parts.Watch(), time.process_time()
    for round_ in range(ROUNDS):
        for trainer, stream in work:
            batches = stream.starting_at(round_ * iterations)
            for index in range(iterations):
                trainer.iteration(batches(index))
    computed_s = time.process_time() - computed_s
    return watch.parts(ROUNDS * CLIENTS * iterations, computed_s, 0.0)


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


_TIMED = f"{parts.TimedHuSCF.__module__}:{parts.TimedHuSCF.__name__}"


def _plain_road() -> parts.Parts:
    code = "import json; from simulations import benchmark; print(json.dumps(benchmark.plain()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return parts.Parts(*json.loads(done.stdout))


def _in_process_road() -> parts.Parts:
    with tempfile.TemporaryDirectory() as folder:
        in_process(Path(folder), strategy=_TIMED)
        return _parts(Path(folder) / "runs" / "latest")


def _flwr_road(**settings: object) -> parts.Parts:
    with tempfile.TemporaryDirectory() as folder:
        flwr_run(Path(folder), strategy=_TIMED, **settings)
        return _parts(Path(folder) / "flwr")


def _parts(run: Path) -> parts.Parts:
    return parts.Parts(*json.loads((run / parts.FILE).read_text()))


ROADS = {
    "plain PyTorch, unsplit": _plain_road,
    "in-process": _in_process_road,
    "flwr run, four workers": _flwr_road,
    "flwr run, wire=bfloat16": lambda: _flwr_road(wire="bfloat16"),
    "flwr run, wire=int8": lambda: _flwr_road(wire="int8"),
}


def _compare_speed() -> None:
    print(f"{'':26}{'iterations/s':>13}{'of plain':>9}{'':3}milliseconds of a core, of each:")
    print(f"{'':26}{'':22}{'clients':>11}{'server':>9}{'other':>9}{'idle':>9}", flush=True)
    found: dict[str, list[parts.Parts]] = {road: [] for road in ROADS}
    ratios: dict[str, list[float]] = {road: [] for road in ROADS}
    for _ in range(_TURNS):
        for road, measure in ROADS.items():
            found[road].append(measure())
            plain = next(iter(found.values()))[-1]
            ratios[road].append(plain.passing / found[road][-1].passing)
            _print_road(road, found[road][-1], ratios[road][-1])
    print("medians")
    medians = {
        road: parts.Parts(*map(statistics.median, zip(*found[road], strict=True)))
        for road in ROADS
    }
    for road, median in medians.items():
        _print_road(road, median, statistics.median(ratios[road]))
    path = PROJECT / "runs" / "benchmark.png"
    path.parent.mkdir(exist_ok=True)
    parts.picture(medians, path)
    print(f"picture: {path}")


def _print_road(road: str, of: parts.Parts, ratio: float) -> None:
    passing, *cores = of
    numbers = "".join(f"{value:9.1f}" for value in cores)
    print(f"{road:26}{1e3 / passing:13.1f}{ratio:9.2f}  {numbers}", flush=True)


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
    for label, measure in (("in-process", in_process), ("flwr run, over TLS", flwr_run)):
        with tempfile.TemporaryDirectory() as folder:
            latency = measure(Path(folder), devices="measured")["latency"]
        predicted, measured = latency["predicted_s"], latency["measured_s"]
        print(
            f"{label:28}{predicted:12.3f}{measured:12.3f}{measured / predicted:8.2f}", flush=True
        )


def _compare_defences() -> None:
    """In turns, so that what else the machine does is the same for both."""
    ratios = []
    for _ in range(_DEFENCES_TURNS):
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
    from huscf_flwr.system.cpu import cores, settle_memory

    settle_memory()
    config = RunConfig().settled(".")
    generator = Generator(config.net_spec, initial_state(config.net_spec, config.seed))
    work = [(source.name, generator) for source in config.sources(".")]
    scorer = Scorer(config, ".", cores())
    for label, full in (("the first time", False), ("in between", False), ("at the end", True)):
        started = time.monotonic()
        scorer.scores(work, full=full)
        print(f"scores {label:16}{time.monotonic() - started:8.2f} s", flush=True)


MEASUREMENTS = {
    "speed": _compare_speed,
    "memory": _compare_memory,
    "latency": _compare_latency,
    "defences": _compare_defences,
    "evaluation": _time_evaluation,
    "clients": many_clients.compare,
    "launches": launches.main,
    "runners": runners.compare,
}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="see above")
    what = parser.parse_args().what
    if unknown := set(what) - MEASUREMENTS.keys():
        parser.error(f"{min(unknown)}: there is none; there are {', '.join(MEASUREMENTS)}")
    for name in what or MEASUREMENTS:
        print(f"\n{name}\n", flush=True)
        MEASUREMENTS[name]()


if __name__ == "__main__":
    main()
