"""What several tests need: a tiny net, a little data, and clients that train in threads."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

import csv
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from huscf_flwr.clients.over_channel import train_over
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import BatchStream, LabelledImages
from huscf_flwr.data.draws import seeded
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, find_sources, load_domain
from huscf_flwr.evaluation import classifier as classifier_module
from huscf_flwr.nets import (
    DISC,
    GEN,
    NetShapes,
    NetSpec,
    PartialGAN,
    State,
    initial_state,
    net_shapes,
)
from huscf_flwr.nets.losses import Losses
from huscf_flwr.procedure import ClientTraining, ServerHalf
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.runner import Runner
from huscf_flwr.runner.session import SessionOutcome, SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange, exchange_specs
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.wire.channel import Channel
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frame_server import FrameServer
from huscf_flwr.wire.frames import Frame, FrameKey, written
from huscf_flwr.wire.tls_channel import TlsChannel

cpu.settle_memory()

SPEC = NetSpec(image_size=16, channels=1, num_classes=3, width=2)
SHAPES: NetShapes = net_shapes(SPEC)
CUTS = [Cut(*ends) for ends in itertools.product((1, 2), repeat=4)]
"""All cuts of a net of five blocks."""
CUT, OTHER = Cut(1, 1, 1, 1), Cut(2, 1, 2, 2)
BATCH = 4
RATE = 1e-2
PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
"""Where this environment's programs are."""
FORMAT = ImageFormat(16, 1, 3)
GREY = ImageFormat(16, 1, 10)
COLOUR = ImageFormat(16, 3, 10)


def tiny(**settings: Any) -> RunConfig:
    """A run of three clients and two domains, one.npz and two.npz, that takes a moment."""
    return RunConfig(
        **{
            "num_clients": 3,
            "num_classes": 3,
            "channels": 1,
            "width": 2,
            "batch_size": BATCH,
            "local_epochs": 1,
            "num_server_rounds": 3,
            "utility_images": 100,
            "warmup_rounds": 1,
            "clusters": "2",
            "domains": "one.npz,two.npz",
            **settings,
        }
    )


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own, which holds no classifier at first."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder / "huscf-flwr"


def images(count: int, seed: int = 0, size: int = 16, channels: int = 1) -> LabelledImages:
    """Random images with labels 0 to 2, as many of each."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=random)
    labels = torch.arange(count)[torch.randperm(count, generator=random)] % 3
    return LabelledImages(pixels.to(torch.uint8), labels)


def stream(client: int) -> BatchStream:
    """Batches of a client with ten images of its own."""
    return BatchStream(
        images(10, seed=client),
        batch_size=BATCH,
        latent_size=SHAPES.latent_size,
        draws=seeded(0, client),
    )


def write_npz(path: Path, data: LabelledImages) -> Path:
    """Save images as a domain."""
    np.savez(path, images=data.images.permute(0, 2, 3, 1).numpy(), labels=data.labels.numpy())
    return path


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of a comparison."""
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def load(name: str, folder: Path, image_format: ImageFormat = FORMAT) -> Domain:
    """A domain as the run key `domains` calls it, for a caller in `folder`; sets are in sets/."""
    (source,) = find_sources(name, str(folder), data_root="sets", download=False)
    return load_domain(source, image_format)


def segments(dtype: torch.dtype = torch.float32, seed: int = 0) -> Segments:
    """The server's blocks 1 to 3 of both nets."""
    state = initial_state(SPEC, seed, dtype)
    nets = PartialGAN(SPEC, state, gen=range(1, 4), disc=range(1, 4))
    return Segments(nets, SHAPES, batch_size=BATCH, learning_rate=RATE)


class ServedBy(Runner):
    """A runner of clients that all train with one half of the server."""

    def __init__(self, server: Segments, settings: RunnerSettings, warnings: list[str]) -> None:
        super().__init__(settings, warnings.append)
        self.server = server

    def expect(self, round_: int, cuts: Iterable[Cut], iterations: int) -> None:
        """Open a round for clients 0, 1, ..., whose tokens are their numbers."""
        self.open_round(round_, plans(self.server, cuts, iterations))


@contextmanager
def running(
    server: Segments,
    warnings: list[str] | None = None,
    cohort: int | None = 64,
    **settings: float,
) -> Iterator[ServedBy]:
    """A runner that is closed at the end."""
    options = RunnerSettings(cohort=cohort, **settings)
    runner = ServedBy(server, options, warnings if warnings is not None else [])
    try:
        yield runner
    finally:
        runner.close()


class LocalChannel:
    """Straight calls into a runner of this process, from a thread of the client's own."""

    def __init__(self, runner: Runner, token: str) -> None:
        self._desk = runner.join(token)

    def exchange(self, sent: Frame) -> Frame:
        answer = self._desk.exchange_frame(sent)
        return Frame(answer.key, {name: t.clone() for name, t in answer.tensors.items()})

    def close(self) -> None:
        self._desk.leave("closed its channel")


def dial(server: FrameServer, token: str, coding: Coding = EXACT, **timeouts: float) -> TlsChannel:
    """A client's way to a frame server of this machine."""
    address, timeouts = f"127.0.0.1:{server.port}", {"dial_timeout": 20.0, **timeouts}
    timeouts.setdefault("round_timeout", 60.0)
    return TlsChannel(address, token, server.certificate, coding=coding, **timeouts)


def trainer(cut: Cut, state: State) -> HeadsAndTails:
    """A client's half, with a copy of its blocks from `state`."""
    return HeadsAndTails(SPEC, SHAPES, cut, state, learning_rate=RATE, batch_size=BATCH)


def plans(server: ServerHalf, cuts: Iterable[Cut], iterations: int) -> list[SessionPlan]:
    """Sessions of clients 0, 1, ..., whose tokens are their numbers."""
    return [SessionPlan(str(k), k, server, cut, iterations) for k, cut in enumerate(cuts)]


def train(
    half: HeadsAndTails,
    channel: Channel,
    iterations: int,
    batches: Callable[[int], Any],
    round_: int = 1,
) -> list[Losses]:
    """Let one client train a round over a channel; its losses."""
    part = ClientTraining(half, batches, iterations)
    train_over(channel, part, round_)
    return part.results


def train_in_process(
    server: Segments,
    halves: list[HeadsAndTails],
    cuts: list[Cut],
    iterations: int,
    cohort: int | None = None,
    coding: Coding = EXACT,
) -> tuple[list[list[Losses]], list[SessionOutcome]]:
    """Let all clients train a round step by step; their losses, and how they fared."""
    runner = InProcessRunner(cohort, coding)
    runner.open_round(1, plans(server, cuts, iterations))
    parts = {
        k: ClientTraining(half, stream(k).__getitem__, iterations) for k, half in enumerate(halves)
    }
    # As many threads as ever, or sums would be rounded differently: as the engine has it.
    with ThreadPoolExecutor(2, initializer=cpu.use_threads, initargs=(1,)) as workers:
        assert not runner.train(parts, workers)
    return [part.results for part in parts.values()], runner.close_round()


def in_threads(actions: Iterable[Callable[[], object]]) -> None:
    """Run all at once; raises what the first that failed raised."""
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        cpu.use_threads(1)
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def train_all(
    runner: Runner,
    halves: list[HeadsAndTails],
    iterations: int,
    open_channel: Callable[[str], Channel] | None = None,
    round_: int = 1,
) -> list[list[Losses]]:
    """Let all clients train a round together, each in a thread; their losses."""
    losses: list[list[Losses]] = [[] for _ in halves]

    def run(k: int) -> None:
        channel = open_channel(str(k)) if open_channel else LocalChannel(runner, str(k))
        try:
            losses[k] = train(halves[k], channel, iterations, stream(k).__getitem__, round_)
        finally:
            channel.close()

    in_threads([lambda k=k: run(k) for k in range(len(halves))])
    return losses


def bytes_of(state: State) -> dict[str, bytes]:
    """Every value, byte by byte."""
    return {name: value.cpu().numpy().tobytes() for name, value in state.items()}


def own_blocks(cut: Cut) -> dict[str, tuple[int, ...]]:
    """Indices of a client's blocks."""
    return {GEN: cut.gen(SHAPES).client, DISC: cut.disc(SHAPES).client}


def frame(exchange: Exchange, iteration: int = 0, cut: Cut = CUT, fill: float = 0.1) -> Frame:
    """What a client with this cut would send, with the same value everywhere."""
    sent = exchange_specs(cut, SHAPES, BATCH)[exchange].sent
    tensors = {name: torch.full(shape, fill) for name, shape in sent.items()}
    return Frame(FrameKey(1, iteration, exchange), tensors)


def encode(sent: Frame, coding: Coding = EXACT) -> bytes:
    """A frame as it crosses."""
    return b"".join(written(sent, coding))


def wait_until_active(runner: Runner, clients: int) -> None:
    """Return once so many sessions have joined."""
    while not runner.progress().note.startswith(f"{clients} clients"):
        time.sleep(0.005)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers that are trained for a moment only."""
    monkeypatch.setattr(classifier_module, "_steps", lambda *_: 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one.npz and two.npz in it, of 30 images each."""
    write_npz(tmp_path / "one.npz", images(30, seed=1))
    write_npz(tmp_path / "two.npz", images(30, seed=2))
    return tmp_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Flower's own, and this environment for all that it starts."""
    folder = tmp_path / "flwr-home"
    folder.mkdir()
    for name, value in {
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (fault := item.get_closest_marker("fault")) is not None:
            item.user_properties.append(("fault", (fault.args[0], fault.kwargs["lost"])))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With `-m fault`: what was done to runs, what came of it, and what was lost, a line each."""
    if config.option.markexpr != "fault":
        return
    words = {"passed": "survived", "failed": "NOT SURVIVED", "error": "NOT TRIED"}
    terminalreporter.section("faults and attacks")
    for outcome, word in words.items():
        for report in terminalreporter.stats.get(outcome, []):
            for done, lost in (value for name, value in report.user_properties if name == "fault"):
                case = report.nodeid.partition("[")[2].rstrip("]")
                what = f"{done} ({case})" if case else done
                cost = f", lost: {lost}" if outcome == "passed" else ""
                terminalreporter.line(f"{what}: {word}{cost}")
