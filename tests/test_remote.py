"""Runners that are processes of their own: runs with them, and who may tell them what to do."""

import contextlib
import csv
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import bytes_of, segments, tiny
from flwr.app import Context, RecordDict
from flwr.common import Config, FitIns, FitRes, NDArrays

from huscf_flwr.cli import main
from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.remote.control import Control, ControlServer, RunnerLost
from huscf_flwr.remote.kit import KEY, SECRET, make_runner_kit, read_runner_kit
from huscf_flwr.remote.messages import Message, decode, encode, named
from huscf_flwr.remote.station import Station
from huscf_flwr.report.writer import RunReport
from huscf_flwr.system.cpu import use_threads
from simulations.attacks import BadClient
from simulations.engine import Engine, InProcessClient
from simulations.runners import Runners, runners
from strategies import MDGAN, HuSCF
from strategies.server import GANServer

HERE = "127.0.0.1:0"


class _Dialling(InProcessClient):
    """A client that exchanges its frames by TLS, as on a device."""

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:
        use_threads(1)
        return self._make(self._context).to_client().fit(ins)


def run(config: RunConfig, folder: Path, client: type[SplitGANClient] = SplitGANClient) -> HuSCF:
    """All rounds, with clients that are threads of this process."""
    strategy = HuSCF(config, RunReport(config, str(folder)), str(folder))
    server = GANServer(strategy, max_workers=config.num_clients)
    for k in range(config.num_clients):
        node = {"partition-id": k, "num-partitions": config.num_clients}
        context = Context(0, k, node, RecordDict(), config.as_dict())
        server.client_manager().register(_Dialling(context, client))
    server.fit(config.num_server_rounds, 120.0)
    return strategy


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For runners here and elsewhere, as sums differ a little by threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runners]:
    with runners(tmp_path_factory.mktemp("runners"), 2) as started:
        yield started


def keys_of(started: Runners) -> dict[str, str]:
    """What a run's config says of its runners."""
    return {"runners": ",".join(started.processes), "runner_kit": str(started.kit)}


KEYS: dict[str, Any] = {"cohort": "all", "output_dir": "run", "clusters": "2"}


@pytest.mark.usefixtures("few_steps")
def test_a_runner_elsewhere_computes_what_one_here_does(two: Runners, folder: Path) -> None:
    """Byte by byte: what the nets are, and what the guard knows."""
    found = []
    for keys in ({}, {**keys_of(two), "runners": next(iter(two.processes))}):
        config = tiny(**{**KEYS, **keys, "output_dir": f"run-{len(found)}"})
        strategy = run(config, folder)
        found.append(
            (
                {c: bytes_of(model) for c, model in strategy.models.items()},
                {c: bytes_of(state) for c, state in strategy.server.checkpoint().items()},
                strategy.defences.guard.state(),
            )
        )
    assert found[0][0].keys() == found[1][0].keys()
    assert found[0] == found[1]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("every", [1, 3])
def test_two_runners_share_the_clients(two: Runners, folder: Path, every: int) -> None:
    config = tiny(
        **KEYS, **keys_of(two), num_clients=4, runner_sync_every=every, num_server_rounds=2
    )
    strategy = run(config, folder)
    with (folder / "run" / "clusters.csv").open() as file:
        assert [row["client"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"] * 2
    known = strategy.defences.guard.state().values()
    assert {client for levels in known for client in levels} == {0, 1, 2, 3}


@pytest.mark.usefixtures("few_steps")
def test_defences_are_on_elsewhere(
    two: Runners, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BadClient, "attack", "huge")
    monkeypatch.setattr(BadClient, "bad", 1)
    config = tiny(**KEYS, **keys_of(two), num_clients=6, local_epochs=4, num_server_rounds=1)
    run(config, folder, BadClient)
    (refused,) = {r.getMessage() for r in caplog.records if "round 1: client 5" in r.getMessage()}
    assert "sent gradients that are not those of what it was sent" in refused
    with (folder / "run" / "clusters.csv").open() as file:
        assert [row["client"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4"]


@pytest.mark.usefixtures("few_steps")
def test_a_runner_that_is_killed_is_named_and_the_round_repeated(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with runners(tmp_path, 2) as started:
        (_, victim), (lost, process) = started.processes.items()
        assert victim.poll() is None

        class Killing(SplitGANClient):
            def begin(self, parameters: NDArrays, config: Config) -> ClientTraining:
                part = super().begin(parameters, config)
                batches = part.batches

                def kill(index: int) -> Any:
                    if index == 2 and config["round"] == 2 and config["client"] == 3:
                        process.kill()
                    return batches(index)

                part.batches = kill
                return part

        config = tiny(**KEYS, **keys_of(started), num_clients=4, local_epochs=2)
        with caplog.at_level(logging.WARNING):
            run(config, folder, Killing)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert f"the runner at {lost} is gone: " in said and "; it is repeated" in said
    assert f"the runner at {lost} cannot be reached" in said
    assert ": its clients train with the others" in said
    with (folder / "run" / "clusters.csv").open() as file:
        assert [int(row["round"]) for row in csv.DictReader(file)] == [1] * 4 + [2] * 4 + [3] * 4


@pytest.fixture
def control(tmp_path: Path) -> Iterator[tuple[ControlServer, Path]]:
    """A runner of this process, and its kit."""
    make_runner_kit(tmp_path / "kit")
    kit = read_runner_kit(tmp_path / "kit")
    server = ControlServer(kit, HERE, lambda: Station(HERE, "", "cpu"))
    yield server, kit.folder
    server.close()


def _ask(server: ControlServer, kit: Path, address: str = "") -> Message:
    gone: list[RunnerLost] = []
    control = Control(address or f"127.0.0.1:{server.port}", read_runner_kit(kit), gone.append)
    try:
        return control.ask(Message("progress"), 20)
    finally:
        control.close()


def test_who_shows_another_secret_is_sent_away(
    control: tuple[ControlServer, Path], caplog: pytest.LogCaptureFixture
) -> None:
    server, kit = control
    with pytest.raises(UserError, match="a run has to begin first"):
        _ask(server, kit)
    (kit / SECRET).write_text("guessed\n")
    with pytest.raises(RunnerLost, match=r"does not take the secret in .*/kit/secret"):
        _ask(server, kit)
    assert any("showed a wrong secret" in record.getMessage() for record in caplog.records)


def test_a_runner_with_another_certificate_is_not_trusted(
    control: tuple[ControlServer, Path], tmp_path: Path
) -> None:
    make_runner_kit(tmp_path / "other")
    with pytest.raises(RunnerLost, match=r"shows another certificate than .*/other/runner\.pem"):
        _ask(control[0], tmp_path / "other")
    with pytest.raises(RunnerLost, match=r"the runner at 127\.0\.0\.1:9 cannot be reached"):
        _ask(*control, address="127.0.0.1:9")


def test_a_runner_serves_one_run_at_a_time(
    control: tuple[ControlServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, kit = control
    monkeypatch.setattr("huscf_flwr.remote.control._SEAT_SECONDS", 0.1)
    first = Control(f"127.0.0.1:{server.port}", read_runner_kit(kit), lambda lost: None)
    with contextlib.suppress(UserError):
        first.ask(Message("progress"), 20)
    with pytest.raises(RunnerLost, match="is taken: another run has it"):
        _ask(server, kit)
    first.close()


def test_messages_survive_the_wire() -> None:
    state = segments().state()
    sent = Message("open", {"round": 3, "why": None}, named("half-0", state))
    got = decode(encode(sent))
    assert (got.kind, got.facts) == (sent.kind, sent.facts)
    assert bytes_of(got.part("half-0")) == bytes_of(state)
    for broken in (b"", b"x" * 40, encode(sent)[:-1], b"HSR0" + encode(sent)[4:]):
        with pytest.raises(ValueError, match="unreadable message"):
            decode(broken)
    assert torch.equal(got.part("half-0")["gen.1.0.weight"], state["gen.1.0.weight"])


def test_a_kit_is_its_owners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = tmp_path / "kit"
    assert main(["runner", str(kit), "--new"]) == 0
    assert all(not file.stat().st_mode & 0o077 for file in (kit, *kit.iterdir()))
    assert main(["runner", str(kit), "--new"]) == 1
    assert "is there already" in capsys.readouterr().err
    (kit / KEY).unlink()
    assert main(["runner", str(kit), "--control", HERE, "--clients", HERE]) == 1
    assert "runner.key: No such file or directory; huscf runner --new" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"runners": "10.0.0.5"}, 'runners="10.0.0.5": must be host:port'),
        ({"runners": "10.0.0.5:9100"}, "runner-kit must say which kit they have"),
    ],
)
def test_where_runners_are_has_to_be_said(keys: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**keys)


def test_other_strategies_compute_where_the_run_is(folder: Path) -> None:
    config = tiny(strategy="mdgan", runners="127.0.0.1:9", runner_kit="kit")
    with pytest.raises(UserError, match="leave runners empty with strategy=mdgan"):
        MDGAN(config, RunReport(config, str(folder)), str(folder))


def test_in_one_process_there_are_no_others(folder: Path) -> None:
    with pytest.raises(UserError, match="huscf train computes all in its own process"):
        Engine(tiny(runners="127.0.0.1:9", runner_kit="kit"), str(folder))


def test_the_command_ends_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "huscf_flwr.cli", "runner", "kit", "--control", HERE]
    done = subprocess.run(
        [*command, "--clients", "0.0.0.0:9"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--address must say which host:port the clients dial" in line
