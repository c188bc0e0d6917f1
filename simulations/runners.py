"""Runners as processes of this machine, and how much faster two are than one.

    python -m simulations.runners             in lockstep
    python -m simulations.runners --every 4   with a meeting every four iterations

Real clients, four threads of this process, which compute their halves and dial by TLS, with a net
that is narrow where they have it and wide on the server: so they cost little, as if they were on
other machines. Each runner has one core and one thread; clients share what cores there are.
Several repetitions in turn; a round before each is not counted, in which processes warm up.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from torch import Tensor, nn

from huscf_flwr.clients.over_channel import train_over
from huscf_flwr.data.batches import BatchStream, LabelledImages
from huscf_flwr.data.draws import seeded
from huscf_flwr.nets import Blocks, NetSpec, initial_state, net_shapes, register_net
from huscf_flwr.procedure import ClientTraining, exchanged_bytes
from huscf_flwr.remote.kit import read_runner_kit
from huscf_flwr.remote.runners import Job, RemoteRunners
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.runner.tokens import new_token
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import all_segments
from huscf_flwr.system.cpu import use_threads
from huscf_flwr.wire.tls_channel import TlsChannel

NARROW = 16


def _wide(kind: type[nn.Module], inputs: int, outputs: int, size: int = 3) -> nn.Sequential:
    """A convolution that keeps the size of its input, or doubles it where that is transposed."""
    made = kind(inputs, outputs, size, 1 if size % 2 else 2, 1)
    return nn.Sequential(made, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


class _First(nn.Module):
    """What takes the labels, too: as an embedding that is added to the input."""

    def __init__(self, inputs: int, classes: int, layers: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, inputs)
        self.layers = layers

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = self.layers(x + self.embedding(labels).view_as(x))
        return found


@register_net("wide-middle")
def wide_middle(spec: NetSpec) -> Blocks:
    """Images of 28 pixels; `width` channels in the middle, and few at the ends."""
    latent, w, pixels = 64, spec.width, spec.image_size**2
    begin = nn.Sequential(nn.Linear(latent, NARROW * 49), nn.Unflatten(1, (NARROW, 7, 7)))
    end = nn.Sequential(nn.ConvTranspose2d(NARROW, spec.channels, 4, 2, 1), nn.Tanh())
    look = nn.Sequential(nn.Conv2d(spec.channels, NARROW, 4, 4), nn.LeakyReLU(0.2))
    return Blocks(
        generator=[
            _First(latent, spec.num_classes, begin),
            _wide(nn.Conv2d, NARROW, w),
            _wide(nn.Conv2d, w, w),
            _wide(nn.ConvTranspose2d, w, NARROW, 4),
            end,
        ],
        discriminator=[
            _First(spec.channels * pixels, spec.num_classes, look),
            _wide(nn.Conv2d, NARROW, w),
            _wide(nn.Conv2d, w, w),
            _wide(nn.Conv2d, w, NARROW),
            nn.Sequential(nn.Flatten(), nn.Linear(NARROW * 49, 1)),
        ],
        latent_size=latent,
    )


SPEC = NetSpec(
    net="simulations.runners:wide-middle", image_size=28, channels=1, num_classes=10, width=256
)
CUT = Cut(1, 1, 1, 1)
CLIENTS, BATCH, RATE = 4, 32, 2e-4
ITERATIONS, TURNS = 12, 3


@dataclass
class Runners:
    """Runners that are processes of this machine.

    Attributes
    ----------
    kit: their kit.
    processes: by the address of their control.
    """

    kit: Path
    processes: dict[str, subprocess.Popen[str]]


@contextmanager
def runners(folder: Path, count: int, cores: Sequence[int] = ()) -> Iterator[Runners]:
    """Start so many, with a kit in `folder`; they end with the block.

    Where there are `cores`, each has one of them, and one thread.
    """
    huscf, kit = [sys.executable, "-m", "huscf_flwr.cli", "runner"], folder / "runners"
    if not kit.exists():
        subprocess.run([*huscf, str(kit), "--new"], check=True, capture_output=True)
    started = []
    try:
        for number in range(count):
            command = [*huscf, str(kit), "--control", "127.0.0.1:0", "--clients", "127.0.0.1:0"]
            if cores:
                core = cores[number % len(cores)]
                command = ["env", "OMP_NUM_THREADS=1", "taskset", "-c", str(core), *command]
            started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        yield Runners(kit, {_address(process): process for process in started})
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    """The address of a runner's control, which is in its first line."""
    assert process.stderr is not None
    line = process.stderr.readline()
    # What it says has to go somewhere, or it stops.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return line.split()[-1]


@dataclass(frozen=True)
class Measured:
    """Seconds of an iteration of all clients, and of processors' time in a round."""

    iteration_s: float
    runners_s: float
    clients_s: float


def measure(started: Runners, every: int) -> Measured:
    """Train a round with these runners, after one that is not counted."""
    state, shapes = initial_state(SPEC, 0), net_shapes(SPEC)
    server = all_segments(SPEC, state, batch_size=BATCH, learning_rate=RATE)
    largest = max(exchanged_bytes(server.exchanges(CUT), server.dtype))
    job = Job(SPEC, BATCH, RATE, RunnerSettings(cohort=None), largest, every)
    remote = RemoteRunners(list(started.processes), read_runner_kit(started.kit), 10.0, print)
    remote.begin(job)
    halves = [
        HeadsAndTails(SPEC, shapes, CUT, state, learning_rate=RATE, batch_size=BATCH)
        for _ in range(CLIENTS)
    ]
    data = [_data(client, shapes.latent_size) for client in range(CLIENTS)]

    def train(round_: int, client: int, token: str, iterations: int) -> None:
        use_threads(1)
        place = remote.place_of(client)
        channel = TlsChannel(
            place.address, token, place.certificate, dial_timeout=30.0, round_timeout=600.0
        )
        try:
            part = ClientTraining(halves[client], data[client].__getitem__, iterations)
            train_over(channel, part, round_)
        finally:
            channel.close()

    def round_of(round_: int, iterations: int) -> float:
        plans = [SessionPlan(new_token(), k, server, CUT, iterations) for k in range(CLIENTS)]
        remote.open_round(round_, plans)
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(train, round_, p.client, p.token, iterations) for p in plans]:
                done.result()
        seconds = time.monotonic() - began
        assert all(outcome.failure is None for outcome in remote.close_round())
        return seconds

    round_of(1, 1)
    before = _processor_s(started)
    seconds = round_of(2, ITERATIONS)
    runners_s, clients_s = (
        now - then for now, then in zip(_processor_s(started), before, strict=True)
    )
    remote.close()
    return Measured(seconds / ITERATIONS, runners_s, clients_s)


def _data(client: int, latent_size: int) -> BatchStream:
    """Images of noise: only what they cost counts."""
    import torch

    random = torch.Generator().manual_seed(client)
    shape = (2 * BATCH, SPEC.channels, SPEC.image_size, SPEC.image_size)
    images = torch.randint(0, 256, shape, generator=random).to(torch.uint8)
    labels = torch.arange(2 * BATCH) % SPEC.num_classes
    own = LabelledImages(images, labels)
    draws = seeded(0, client)
    return BatchStream(own, batch_size=BATCH, latent_size=latent_size, draws=draws)


def _processor_s(started: Runners) -> tuple[float, float]:
    """Seconds of the processors so far: of the runners, and of this process."""
    used = [psutil.Process(p.pid).cpu_times() for p in started.processes.values()]
    own = psutil.Process().cpu_times()
    return sum(t.user + t.system for t in used), own.user + own.system


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="iterations between meetings")
    compare(parser.parse_args().every)


def compare(every: int = 1) -> None:
    """Print how fast one and two are, with meetings after so many iterations."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(TURNS):
            for count, seconds in found.items():
                with runners(Path(folder), count, cores) as started:
                    one = measure(started, every)
                seconds.append(one.iteration_s)
                share = one.runners_s / (one.runners_s + one.clients_s)
                print(
                    f"{count} runner{'s' * (count > 1)}: {one.iteration_s:6.3f} s an iteration of "
                    f"{CLIENTS} clients; {share:.0%} of the processors' time is the runners'",
                    flush=True,
                )
    medians = {count: statistics.median(seconds) for count, seconds in found.items()}
    times = medians[1] / medians[2]
    print(f"medians {medians[1]:.3f} s and {medians[2]:.3f} s: two are {times:.2f} times as fast")


if __name__ == "__main__":
    main()
