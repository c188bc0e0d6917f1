"""Runs that are cut off, and what they go on from."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bytes_of, tiny
from programs import SMALL

from huscf_flwr.cli import main
from huscf_flwr.clients.kept_state import ClientState, load_state, save_state
from huscf_flwr.errors import UserError
from huscf_flwr.nets.generator import load_generator
from huscf_flwr.nets.saved import load_tensors, save_tensors
from huscf_flwr.report.files import read_run
from huscf_flwr.report.writer import RunReport
from simulations.engine import Engine

ROUNDS = 8


def keys(output: str, **settings: str) -> list[str]:
    """A tiny run whose clusters are found on the way, for `huscf train`."""
    run = {
        **SMALL,
        "num-clients": 4,
        "num-server-rounds": ROUNDS,
        "warmup-rounds": 2,
        "clusters": "auto",
        "domains": "one.npz,two.npz",
        "evaluate-every": 100,
        "output-dir": output,
        **settings,
    }
    return [f"{key}={value}" for key, value in run.items()]


@contextmanager
def training(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`huscf train` in a process of its own, with its log on standard error."""
    command = [sys.executable, "-m", "huscf_flwr.cli", "train", *words]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_round(process: subprocess.Popen[str], number: int) -> None:
    assert process.stderr is not None
    while f"round {number}/" not in (line := process.stderr.readline()):
        assert line


def final(folder: Path) -> dict[str, bytes]:
    """The nets, optimisers and probes with which a run ended, byte by byte."""
    return bytes_of(load_tensors(folder / "checkpoints" / f"round-{ROUNDS:03d}.safetensors")[0])


def shown(folder: Path) -> tuple[dict[str, bytes], list[str], bytes]:
    """What a run leaves of all its rounds: samples, losses, and who was where."""
    run = read_run(folder)
    losses = [f"{row.round} {row.domain} {row.values['generator_loss']}" for row in run.metrics]
    samples = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    return samples, losses, (folder / "clusters.csv").read_bytes()


@pytest.mark.parametrize("strategy", ["huscf", "clustered-fedgan", "mdgan"])
@pytest.mark.fault("SIGKILL of huscf train, resumed", lost="the round it was in")
def test_a_killed_run_that_goes_on_ends_in_the_bytes_of_one_that_was_not(
    strategy: str, folder: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None
) -> None:
    """Clusters, the clients' optimisers and their places in the data included."""
    monkeypatch.chdir(folder)
    assert main(["train", *keys("whole", strategy=strategy)]) == 0
    with training(folder, *keys("cut", strategy=strategy)) as victim:
        wait_for_round(victim, 3)
        victim.kill()
    assert not (folder / "cut" / "summary.json").exists()
    assert list((folder / "cut").glob("generator-cluster-*.safetensors"))
    assert main(["train", "resume=cut", "output-dir=more"]) == 0  # the other keys are that run's
    assert final(folder / "more") == final(folder / "whole")
    assert shown(folder / "more") == shown(folder / "whole")


@pytest.mark.fault("SIGKILL of huscf train in the middle of a checkpoint, resumed", lost="a round")
def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None
) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from huscf_flwr.cli import main\n"
        "replace = Path.replace\n"
        "def killed(self, target):\n"
        "    if Path(target).name == 'round-003.safetensors':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(self, target)\n"
        "Path.replace = killed\n"
        "sys.exit(main(['train', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", script, *keys("cut")]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == -9
    monkeypatch.chdir(folder)
    assert main(["train", *keys("more", resume="cut")]) == 0
    assert main(["train", *keys("whole")]) == 0
    assert final(folder / "more") == final(folder / "whole")


def test_an_interrupted_run_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None
) -> None:
    with training(folder, *keys("cut")) as victim:
        wait_for_round(victim, 3)
        victim.terminate()
        assert victim.stderr is not None
        said = victim.stderr.read()
    assert victim.returncode == 130 and "Traceback" not in said
    (line,) = [line.strip() for line in said.splitlines() if "resume=" in line]
    monkeypatch.chdir(folder)
    assert main([*line.split()[1:], "name=more"]) == 0
    (made,) = (folder / "runs").glob("*-more")
    assert final(made)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 16
    path.write_bytes(data)


def _nan(path: Path) -> None:
    tensors, facts = load_tensors(path)
    name = next(n for n, value in tensors.items() if value.is_floating_point() and value.dim())
    tensors[name].view(-1)[0] = torch.nan
    save_tensors(path, tensors, facts)


def _other_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'format\\": 4', b'format\\": 9'))


DAMAGE = {
    "cut short": (_cut_short, "cannot be read"),
    "a flipped bit": (_flip, "checksum differs"),
    "NaN": (_nan, "no finite numbers"),
    "another version": (_other_version, "of format 9"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.fault("a damaged checkpoint", lost="a round")
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture, few_steps: None
) -> None:
    damage, message = DAMAGE[kind]
    Engine(tiny(output_dir="first"), str(folder)).run()
    damage(folder / "first" / "checkpoints" / "round-003.safetensors")
    with caplog.at_level(logging.WARNING):
        resumed = Engine(tiny(resume="first", num_server_rounds=4, output_dir="x"), str(folder))
    assert resumed.strategy.rounds_before == 2
    assert "round-003.safetensors" in caplog.text and message in caplog.text
    damage(folder / "first" / "checkpoints" / "round-002.safetensors")
    with pytest.raises(UserError, match="no good checkpoint in it"):
        Engine(tiny(resume="first", num_server_rounds=4), str(folder))


def test_a_checkpoints_generators_are_those_of_its_round(
    folder: Path, few_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Engine(tiny(output_dir="first"), str(folder)).run()
    kept, out = made / "checkpoints", folder / "x.npz"
    grids = {}
    for name, file, words in (
        ("last", made / "generator-cluster-1.safetensors", []),
        ("of the last round", kept / "round-003.safetensors", ["--cluster", "1"]),
        ("of the one before", kept / "round-002.safetensors", ["--cluster", "1"]),
    ):
        assert main(["generate", str(file), *words, "--seed", "1", "--out", str(out)]) == 0
        with np.load(out) as arrays:
            grids[name] = arrays["images"].tobytes()
    assert grids["last"] == grids["of the last round"] != grids["of the one before"]
    for file, words, message in (
        ("round-003", [], "has clusters 0, 1: --cluster says of which"),
        ("round-003", ["--cluster", "7"], "has no cluster 7, but 0, 1"),
        ("round-001", [], "round-001.safetensors: no such file: did you mean"),
    ):
        words = [str(kept / f"{file}.safetensors"), *words, "--out", str(out)]
        assert main(["generate", *words]) == 1
        assert message in capsys.readouterr().err
    words = [str(made / "generator-cluster-1.safetensors"), "--cluster", "1", "--out", str(out)]
    assert main(["generate", *words]) == 1
    assert "is no checkpoint" in capsys.readouterr().err


def test_an_optimiser_of_another_shape_is_refused(folder: Path, few_steps: None) -> None:
    Engine(tiny(output_dir="first"), str(folder)).run()
    path = folder / "first" / "checkpoints" / "round-003.safetensors"
    tensors, facts = load_tensors(path)
    name = next(n for n in tensors if n.endswith("/exp_avg") and tensors[n].dim() > 1)
    save_tensors(path, {**tensors, name: torch.zeros(3)}, facts)
    with pytest.raises(UserError, match="server blocks do not fit: the optimiser's state of"):
        Engine(tiny(resume="first", num_server_rounds=4), str(folder))


@pytest.mark.fault("30 runs that begin in one folder at the same time", lost="nothing")
def test_a_folder_is_of_one_run(folder: Path) -> None:
    """However many begin at the same time."""

    def start(output_dir: str) -> Path | None:
        report = RunReport(tiny(output_dir=output_dir), str(folder))
        try:
            report.start()
        except UserError:
            return None
        return report.folder

    with ThreadPoolExecutor(16) as pool:
        named = list(pool.map(start, ["mine"] * 30))
        stamped = list(pool.map(start, [""] * 30))
    assert len([path for path in named if path]) == 1
    assert len(set(stamped)) == 30 and None not in stamped


@pytest.mark.fault("a full disk", lost="the files")
def test_runs_latest_is_all_that_a_folder_that_cannot_be_written_costs(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "runs").touch()
    with caplog.at_level(logging.WARNING):
        report = RunReport(tiny(output_dir="out"), str(folder))
        report.start()
    assert report.folder == folder / "out" and (folder / "out" / "config.toml").exists()
    (line,) = caplog.messages
    assert line == f"no {folder}/runs/latest: File exists"


def test_names_of_folders_have_no_characters_that_some_systems_refuse(folder: Path) -> None:
    for settings, name in (
        ({"name": "a: b/../c*é"}, "a-b-..-c-é"),
        ({"strategy": "mine.own:Bounded"}, "Bounded"),
    ):
        report = RunReport(tiny(**settings), str(folder))
        report.start()
        assert report.folder.parent == folder / "runs"
        assert report.folder.name.split("-", 2)[2] == name


def test_a_run_goes_on_without_room_on_the_disk_and_fails_at_its_end(folder: Path) -> None:
    """Files may not grow beyond three kilobytes here; training does not depend on them."""
    script = (
        "import resource, sys\n"
        "from huscf_flwr.cli import main\n"
        "from huscf_flwr.evaluation import classifier\n"
        "classifier._steps = lambda *_: 20\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.exit(main(['train', *sys.argv[1:]]))"
    )
    words = keys("out", **{"num-server-rounds": "3"})
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True
    )
    assert "round 3/3" in done.stderr
    assert "the checkpoint of round 3 is not written: " in done.stderr
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("huscf: ")
    assert "Traceback" not in done.stderr
    assert not list((folder / "out").rglob(".*"))  # nothing half-written is left


def test_generators_are_there_after_every_round(folder: Path, few_steps: None) -> None:
    engine = Engine(tiny(output_dir="out"), str(folder))
    found = []
    record = engine.strategy.record_round

    def recorded(server_round: int) -> None:
        record(server_round)
        paths = (folder / "out").glob("generator-cluster-*.safetensors")
        found.append([load_generator(path).sample(1)[0].shape for path in paths])

    engine.strategy.record_round = recorded  # type: ignore[method-assign]
    engine.run()
    assert [len(shapes) for shapes in found] == [1, 2, 2]


def _told(round_: int, run: str = "of-this-run") -> dict[str, str | int]:
    """What the server of another machine says."""
    return {"client": 3, "round": round_, "run": run, "state-dir": "/not/here", "resume-dir": ""}


def test_a_device_keeps_its_state_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of two rounds and of four runs; what it keeps of a later round is not of this one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for round_ in (4, 5, 6):
        moments = {"gen.0.weight/step": torch.tensor(float(round_))}
        save_state(_told(round_), ClientState(10 * round_, moments).packed())
    kept = tmp_path / "huscf-flwr" / "runs" / "of-this-run"
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*.*")) == [
        "client-3/round-5.safetensors",
        "client-3/round-6.safetensors",
    ]
    assert [found and found.iterations for found in map(load_state, map(_told, (5, 6, 7)))] == [
        None,
        50,
        60,
    ]
    _cut_short(kept / "client-3" / "round-6.safetensors")
    found = load_state(_told(7))
    assert found is not None and found.iterations == 50
    assert load_state(_told(7, "of-another")) is None
    for run in ("a", "", "secret", "../../d"):
        save_state(_told(1, run), ClientState(1, {}).packed())
    assert sorted(path.name for path in kept.parent.iterdir()) == ["a", "d", "secret", "unnamed"]
    assert list((tmp_path / "huscf-flwr").iterdir()) == [kept.parent]
    assert [path.name for path in tmp_path.iterdir()] == ["huscf-flwr"]
