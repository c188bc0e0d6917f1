"""Strategies that users write: what they are given, what is asked of what they return."""

import math
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from flwr.server import SimpleClientManager
from hypothesis import given
from hypothesis import strategies as some
from test_answers import OWN, Node

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.keys import key
from huscf_flwr.nets import from_arrays, state_names
from huscf_flwr.own_settings import as_text, read_own
from huscf_flwr.split.cuts import Cut
from simulations.compare import plan_runs
from simulations.engine import Engine, InProcessClient
from strategies import MDGAN, FedGAN, GANStrategy, HuSCF
from strategies.failures import StrategyError
from strategies.roster import Roster
from strategies.updates import Combined, Update, held_by_all

pytestmark = pytest.mark.usefixtures("few_steps")

SMALL = [
    "domains=one.npz", "num-clients=2", "num-classes=3", "width=2", "batch-size=4",
    "local-epochs=1", "num-server-rounds=1", "utility-images=100", "clusters=1",
    "output-dir=out",
]  # fmt: skip


def engine_of(strategy: type[GANStrategy], folder: Path, **settings: Any) -> Engine:
    """A run of a strategy of this module."""
    config = tiny(strategy=f"{__name__}:{strategy.__name__}", output_dir="out", **settings)
    return Engine(config, str(folder))


class Keeping(HuSCF):
    """Keeps what it gets."""

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        self.seen: list[list[Update]]
        self.seen = [*getattr(self, "seen", []), updates]
        return super().combine(server_round, updates)


def test_updates_have_losses_and_what_clients_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, list[Any]]] = []
    begin = InProcessClient.begin

    def kept(client: InProcessClient, parameters: Any, config: Any) -> Any:
        begun.append((int(config["client"]), parameters))
        return begin(client, parameters, config)

    monkeypatch.setattr(InProcessClient, "begin", kept)
    cuts = "1-1-1-1,2-2-2-2,1-2-1-1"
    engine = engine_of(Keeping, folder, num_server_rounds=2, cuts=cuts)
    engine.run()
    assert isinstance(engine.strategy, Keeping)
    for number, updates in enumerate(engine.strategy.seen):
        given = dict(sorted(begun[3 * number : 3 * number + 3]))
        for update in updates:
            names = state_names(
                engine.strategy.config.net_spec, engine.strategy.client_blocks(update.info)
            )
            due = from_arrays(names, given[update.info.number])
            assert update.began.keys() == due.keys() == update.state.keys()
            assert all(torch.equal(value, due[name]) for name, value in update.began.items())
            assert math.isfinite(update.losses.generator + update.losses.discriminator)
        shared = held_by_all(updates)
        assert {tuple(name.split(".")[:2]) for name in shared} == {
            ("gen", "0"), ("gen", "4"), ("disc", "0"), ("disc", "4")
        }  # fmt: skip
        moved = [update.moved(shared) for update in updates]
        assert len({way.shape for way in moved}) == 1
        name = "gen.0.embedding.weight"
        before, after = updates[1].began[name], updates[1].state[name]
        assert torch.equal(updates[1].moved([name]), (after.double() - before.double()).flatten())
        assert updates[1].moved([name]).abs().sum() > 0


CLIENTS = range(3)


def _spoilt(strategy: HuSCF, *arguments: Any) -> Any:
    servers, models = HuSCF.average(strategy, *arguments)
    models[0] = {**models[0], "gen.0.embedding.weight": models[0]["gen.0.embedding.weight"] / 0}
    return servers, models


WRONG: list[tuple[type[GANStrategy], str, Callable[..., Any], str]] = [
    (
        HuSCF,
        "weigh",
        lambda *_: ({0: math.nan, 1: 0.5, 2: 0.5}, {}),
        r"\(\{0: nan, 1: 0.5, 2: 0.5\}, \{\}\): the weight of client 0 must be a finite number",
    ),
    (HuSCF, "weigh", lambda *_: (dict.fromkeys(CLIENTS, 5.0), {}), "must add up to 1, not to 15"),
    (HuSCF, "weigh", lambda *_: ({0: 2.0, 1: -0.5, 2: -0.5}, {}), "weights must be at least 0"),
    (HuSCF, "weigh", lambda *_: dict.fromkeys(CLIENTS, 1 / 3), "must be a pair of dicts"),
    (
        HuSCF,
        "assign",
        lambda *_: {0: 0, 2: 0},
        "must have a cluster for each of the clients 0, 1, 2, and no other",
    ),
    (FedGAN, "assign", lambda *_: None, "None: must be a dict of clusters by client number"),
    (HuSCF, "assign", lambda *_: dict.fromkeys(CLIENTS, -1), "whole number, at least 0"),
    (HuSCF, "average", _spoilt, r"gen.0.embedding.weight of models\[0\] must have finite numbers"),
    (HuSCF, "average", lambda *_: ({}, {0: {}}), r"models\[0\] lacks disc.0"),
    (FedGAN, "combine", lambda *_: None, "None: must be a Combined"),
    (
        FedGAN,
        "combine",
        lambda *_: Combined({}, {}, {}),
        "models must have a net for each cluster",
    ),
    (HuSCF, "choose_cuts", lambda *_: dict.fromkeys(CLIENTS), "the cut of client 0 must be a Cut"),
    (HuSCF, "choose_cuts", lambda *_: {0: Cut(1, 1, 1, 1)}, "must have a cut for each of the cli"),
    (
        HuSCF,
        "choose_cuts",
        lambda *_: dict.fromkeys(CLIENTS, Cut(3, 1, 1, 1)),
        "cut gen_head=3 takes the middle block from the server",
    ),
    (
        FedGAN,
        "client_blocks",
        lambda *_: {"gen": (0, 5), "disc": (0,)},
        "gen must be different indices from 0 to 4",
    ),
    (FedGAN, "begins_with", lambda *_: {}, "what client 0 begins with lacks disc.0"),
    (FedGAN, "also_due", lambda *_: {"disc.9.x": torch.zeros(1)}, "its name none of a block"),
    (FedGAN, "initial_cluster", lambda *_: "one", "'one': a cluster must be a whole number"),
    (HuSCF, "told", lambda *_: {"cut": None}, "'cut' must be a text, with a text, number"),
    (FedGAN, "open_round", lambda *_: {9: {}}, "must be of clients of this round"),
    (HuSCF, "server_half", lambda *_: 3, "must be a ServerHalf, which has dtype"),
    (HuSCF, "known", lambda *_: {0: 1.0}, "must be of all of these clients, or of nobody"),
    (
        MDGAN,
        "batches",
        lambda *_: 0,
        "0: the number of batches must be a whole number, at least 1",
    ),
    (MDGAN, "discriminator", lambda *_: {}, "the discriminator lacks disc.0"),
]


@pytest.mark.parametrize(
    ("base", "method", "wrong", "message"), WRONG, ids=[f"{w[1]}-{i}" for i, w in enumerate(WRONG)]
)
def test_what_a_method_may_not_return_ends_the_run(
    base: type[GANStrategy],
    method: str,
    wrong: Callable[..., Any],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = type("Wrong", (base,), {method: wrong})
    monkeypatch.setattr(sys.modules[__name__], "Wrong", strategy, raising=False)
    engine = engine_of(strategy, folder, num_server_rounds=1, clusters="1")
    with pytest.raises(StrategyError, match=rf"^Wrong\.{method} returned .*{message}"):
        engine.run()


class Mixin:
    """Weighs as nobody may."""

    def weigh(self, server_round: int, updates: list[Update]) -> object:
        return {}, {}


class Mixed(Mixin, HuSCF):  # type: ignore[misc]
    """What it returns is looked at, too."""


def test_it_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["train", *SMALL, f"strategy={__name__}:Mixed"]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == (
        "huscf: Mixin.weigh returned ({}, {}): must have a weight for each of the clients 0, 1, "
        "and no other"
    )
    assert "Traceback" not in error


def test_latecomers_are_not_left_out_for_a_mistake_of_the_strategys() -> None:
    def choose(clients: list[Any]) -> Any:
        if len(roster.clients):
            raise StrategyError("Wrong.choose_cuts returned {}: must not")
        return dict.fromkeys([info.number for info in clients])

    roster = Roster(RunConfig(num_clients=1, num_classes=3, width=2), dict, choose, at_a_time=4)
    manager = SimpleClientManager()
    manager.register(Node("a", OWN))
    roster.gather(manager)
    manager.register(Node("b", OWN))
    with pytest.raises(StrategyError, match="choose_cuts"):
        roster.present(manager)


# Settings


@dataclass(frozen=True)
class Limits:
    """What can be set."""

    most: float = key(2, "how much", above=0)
    mode: str = key("soft", "how", choices=("soft", "hard"))
    words: str = "a, b"
    often: bool = False

    def __post_init__(self) -> None:
        if self.often and self.mode == "hard":
            raise ValueError("often: not in the mode hard")


class Limited(HuSCF):
    """Has settings, which types know."""

    settings = Limits()

    def weigh(
        self, server_round: int, updates: list[Update]
    ) -> tuple[dict[int, float], dict[int, float]]:
        most: float = self.settings.most
        assert (most, self.settings.mode) == (3.0, "hard")
        return super().weigh(server_round, updates)


def test_a_run_sets_and_keeps_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "keys.toml").write_text('strategy-settings = "most=3, mode=hard"\n')
    command = ["train", *SMALL, f"strategy={__name__}:Limited"]
    assert main([*command, "strategy-settings=most=3,mode=hard"]) == 0
    kept = tomllib.loads((folder / "out" / "config.toml").read_text())
    assert kept["strategy-settings"] == "most=3.0,mode=hard,words='a, b',often=false"
    again = [*command, "output-dir=again", "--config"]
    assert main([*again, "keys.toml"]) == 0
    assert main([*again[:-2], "output-dir=more", "--config", "again/config.toml"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thershold=3", 'unknown key "thershold": known are mode, most, often, words'),
        ("most=lots", "most='lots': must be a number"),
        ("most=0", "most=0.0: must be above 0"),
        ("most=inf", "most=inf: must be finite"),
        ("mode=loud", "mode=loud: must be one of soft, hard"),
        ("often=yes", "often='yes': must be true or false"),
        ("most", '"most" is not key=value'),
        ("words='a", "No closing quotation"),
        ("often=true,mode=hard", "often: not in the mode hard"),
    ],
)
def test_wrong_settings_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_own(Limits(), text)
    assert str(error.value) == f"strategy-settings: {message}"


@dataclass(frozen=True)
class Odd:
    """A setting that cannot be typed."""

    several: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        (Limited, Limits, "must be a dataclass, made with its defaults"),
        (Limited, Odd(), "Odd.several: its default must be a whole number or a number or text"),
        (HuSCF, HuSCF.settings, 'strategy-settings="most=3": the strategy declares no settings'),
    ],
)
def test_what_cannot_have_settings(
    strategy: type[GANStrategy], settings: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=message):
        read_own(settings, "most=3")


@given(some.floats(1e-300, 1e300), some.text() | some.text("a1,= '\""), some.booleans())
def test_settings_are_written_as_they_are_read(most: float, words: str, often: bool) -> None:
    settings = Limits(most=most, words=words, often=often)
    assert read_own(Limits(), as_text(settings)) == settings


def test_settings_are_compared(folder: Path) -> None:
    def planned(**methods: str) -> list[RunConfig]:
        named = {
            name: {"strategy": f"{__name__}:Limited", "strategy-settings": text}
            for name, text in methods.items()
        }
        file = folder / "a.toml"
        file.write_text('domains = "one.npz"\nnum-classes = 3\n')
        runs = plan_runs(
            [str(file)], [], methods=named, seeds=1, folder=folder, base_dir=str(folder)
        )
        return [run.config for run in runs]

    found = [config.strategy_settings for config in planned(plain="", more="most=3")]
    assert found == [f"most={n}.0,mode=soft,words='a, b',often=false" for n in (2, 3)]
    with pytest.raises(UserError, match=r'method "none": strategy-settings: most=0\.0: must'):
        planned(more="most=3", none="most=0")


# Where they are found


def test_they_are_found_beside_folders_called_like_this_projects(folder: Path) -> None:
    """In a process of its own, as packages are loaded once; Python looks in the folder first."""
    for name in ("strategies", "simulations"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (folder / "strategies" / "part.py").write_text("NAME = 'here'")
    (folder / "test.py").write_text(
        "from huscf_flwr.errors import UserError\n"
        "from strategies import HuSCF\nfrom strategies.part import NAME\n"
        "class Mine(HuSCF):\n"
        "    def check_clients(self, clients):\n        raise UserError(NAME)\n"
    )
    (folder / "strategies" / "mine.py").write_text("from test import Mine")
    for name in ("test:Mine", "strategies.mine:Mine"):
        command = [sys.executable, "-m", "huscf_flwr.cli", "train", *SMALL, f"strategy={name}"]
        command += [f"output-dir=out-{name[:4]}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.stderr.splitlines()[-1] == "huscf: here"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("random.py", "", "random.py: give {folder}/random.py another name"),
        ("strategies/base.py", "", "base.py: give {folder}/strategies/base.py another name"),
        ("broken.py", "class", "invalid syntax (broken.py, line 1)"),
        ("other.py", "Mine = 3", "is not a subclass of strategies.GANStrategy"),
    ],
)
def test_what_cannot_be_loaded(
    file: str,
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    name = file.removesuffix(".py").replace("/", ".") + ":Mine"
    assert main(["train", f"strategy={name}"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'huscf: strategy="{name}"')
    assert error.endswith(message.format(folder=tmp_path))
