"""Comparing runs: what `huscf compare` trains, keeps, refuses and shows."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import images, table, write_npz
from filelock import FileLock

import strategies
from huscf_flwr.cli import main
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.errors import UserError
from huscf_flwr.keys import read_settings
from simulations.compare import plan_runs, read_methods
from simulations.perform import time_left
from simulations.rehearsal import free_port, process, until

MORTAL = """\
import os
import signal

from strategies import FedGAN


class Killed(FedGAN):
    def combine(self, server_round, updates):
        os.kill(os.getpid(), signal.SIGKILL)
"""


SMALL = """\
name = "{name}"
domains = "one.npz,two.npz"
num-clients = 2
num-classes = 3
width = 2
batch-size = 4
local-epochs = 1
num-server-rounds = 1
utility-images = 100
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None) -> Path:
    """The current folder, with two domains and the scenario a.toml."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        write_npz(tmp_path / f"{name}.npz", images(20, seed=seed))
    (tmp_path / "a.toml").write_text(SMALL.format(name="a"))
    return tmp_path


def test_a_comparison_is_one_table_and_goes_on_where_it_stopped(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "a.toml", "--strategy", "huscf, fedgan", "--seeds", "2", "--out", "out"]
    assert main(command) == 0
    text = (here / "out" / "comparison.md").read_text()
    assert text in capsys.readouterr().out
    rows = table(here / "out")
    assert [(row["scenario"], row["method"], row["domain"], row["seeds"]) for row in rows] == [
        ("a", "huscf", "one", "2"),
        ("a", "huscf", "two", "2"),
        ("a", "fedgan", "one", "2"),
        ("a", "fedgan", "two", "2"),
    ]
    assert all(0 <= float(row["accuracy_mean"]) <= 1 for row in rows)
    runs = [f"a-{name}-seed-{seed}" for name in ("fedgan", "huscf") for seed in (0, 1)]
    assert sorted(path.name for path in (here / "out").iterdir() if path.is_dir()) == runs

    # One run is interrupted: it alone is trained again, and what it had left is kept.
    summaries = [here / "out" / run / "summary.json" for run in runs]
    summaries[0].unlink()
    before = [path.stat().st_mtime_ns for path in summaries[1:]]
    assert main(command) == 0
    assert [path.stat().st_mtime_ns for path in summaries[1:]] == before
    assert summaries[0].exists()
    aside = here / "out" / f"{runs[0]}.interrupted-1"
    assert (aside / "config.toml").exists() and not (aside / "summary.json").exists()
    assert [row["seeds"] for row in table(here / "out")] == ["2"] * 4


def test_keys_are_set_for_every_scenario_and_a_finished_run_must_have_had_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--out", "out", "a.toml", "batch-size=5"]
    assert main([*command, "width=3"]) == 0
    kept = tomllib.loads((here / "out" / "a-huscf-seed-0" / "config.toml").read_text())
    assert (kept["batch-size"], kept["width"]) == (5, 3)
    capsys.readouterr()
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "a-huscf-seed-0 holds a run with width=3 (now 2): set these keys" in error
    shutil.move(here / "out", here / "moved")
    command[command.index("out")] = "moved"
    assert main([*command, "width=3"]) == 0  # the same run elsewhere
    assert main(["compare", "width=3"]) == 1
    assert "width=3: no TOML file of a scenario is named" in capsys.readouterr().err


def test_a_run_that_fails_is_in_the_table_and_stops_no_other(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "b.toml").write_text(SMALL.format(name="b") + "clusters = 3\n")
    assert main(["compare", "b.toml", "a.toml", "--out", "out"]) == 1
    found = capsys.readouterr()
    reason = "clusters=3: more than the 2 clients"
    assert f"b with huscf failed: seed 0: {reason}" in found.out
    assert "1 of 2 runs failed" in found.err
    assert [row["scenario"] for row in table(here / "out")] == ["b", "a", "a"]
    assert reason in table(here / "out")[0]["failed"]
    assert reason in (here / "out" / "comparison.html").read_text()


def test_runs_are_trained_by_several_processes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its log; one that is killed is a run that failed.

    What a comparison before has left behind, as it was killed, does not go on in the same folder.
    """
    mark = {**os.environ, "HUSCF_COMPARISON": str((here / "out").resolve())}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], env=mark)
    (here / "mortal.py").write_text(MORTAL)
    (here / "m.toml").write_text('[Ours]\n[Killed]\nstrategy = "mortal:Killed"\n')
    monkeypatch.syspath_prepend(here)
    command = ["compare", "a.toml", "--methods", "m.toml", "--out", "out", "--jobs", "2"]
    assert main([*command, "domains=one.npz"]) == 1
    rows = {row["method"]: row for row in table(here / "out")}
    assert rows["Killed"]["failed"] == "seed 0: its process was ended by signal 9"
    assert rows["Ours"]["seeds"] == "1"
    assert "round 1/1" in (here / "out" / "a-ours-seed-0.log").read_text()
    assert left.poll() is not None


@pytest.fixture
def ray_address(tmp_path: Path) -> Iterator[str]:
    """Of a Ray cluster of one machine, which no other program takes for its own."""
    port = free_port()
    options = ("--head", "--block", "--num-cpus=2", "--include-dashboard=false", f"--port={port}")
    log = tmp_path / "ray.log"
    with (
        tempfile.TemporaryDirectory(prefix="ray") as folder,  # its sockets need short paths
        process("ray", "start", *options, "--temp-dir", folder, log=log, cwd=tmp_path),
    ):
        until(lambda: "Ray runtime started" in log.read_text(), 120, log)
        yield f"127.0.0.1:{port}"


@pytest.mark.timeout(600)
def test_runs_are_trained_on_a_ray_cluster(
    here: Path, ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they leave comes back, and a comparison that was interrupted goes on."""
    (here / "b.toml").write_text(SMALL.format(name="b") + "clusters = 3\n")
    command = ["compare", "a.toml", "b.toml", "--out", "out", "--ray", ray_address]
    command.append("domains=one.npz")
    assert main(command) == 1
    first, failed = table(here / "out")
    assert (first["scenario"], first["seeds"]) == ("a", "1")
    assert failed["failed"] == "seed 0: clusters=3: more than the 2 clients"
    made = here / "out" / "a-huscf-seed-0"
    assert {"config.toml", "summary.json", "report.html", "samples"} <= {
        path.name for path in made.iterdir()
    }
    assert str(made) in (made / "report.html").read_text()
    assert read_settings(str(made / "config.toml"), [])["output-dir"] == str(made)
    (made / "summary.json").unlink()  # as if it had been interrupted
    assert main([*command[:2], *command[3:]]) == 0
    assert (made / "summary.json").exists()
    assert (here / "out" / "a-huscf-seed-0.interrupted-1.log").exists()
    capsys.readouterr()
    assert main(["compare", "a.toml", "--ray", "127.0.0.1:1"]) == 1
    assert "--ray 127.0.0.1:1: no cluster there" in capsys.readouterr().err


def test_a_comparison_has_a_page_that_needs_nothing_else(here: Path) -> None:
    (here / "m.toml").write_text('["<b>Ours"]\nevaluate-every = 1\n[Rival]\nstrategy = "mdgan"\n')
    command = ["compare", "a.toml", "--methods", "m.toml", "--seeds", "2", "--out", "out"]
    assert main([*command, "num-server-rounds=2", "evaluate-every=1"]) == 0
    page = (here / "out" / "comparison.html").read_text()
    assert "<script" not in page and not re.search(r"https?://", page)
    names = re.findall(r'<div class="scroll" role="region" aria-label="(.*?)" tabindex="0">', page)
    assert all(names) and len(names) == page.count("<table>")
    assert "&lt;b&gt;Ours" in page and "<b>Ours" not in page
    # Bars, two scores over rounds, operations and bytes; grids of two domains.
    assert page.count('<img src="data:image/svg+xml;base64,') == 3
    assert page.count('<img src="data:image/png;base64,') == 2 * 3
    assert "gradients at generated images to the server in iterations" in page
    with (here / "out" / "differences.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert {(p["method"], p["other"], p["seeds"]) for p in pairs} == {("<b>Ours", "Rival", "2")}


def test_two_comparisons_do_not_share_a_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out").mkdir()
    with FileLock(here / "out" / ".lock"):
        assert main(["compare", "a.toml", "--out", "out"]) == 1
    assert "out: another comparison is running there" in capsys.readouterr().err


class HuSCF(strategies.HuSCF):
    """One of the same name."""


@pytest.mark.parametrize(
    ("texts", "names", "message"),
    [
        (['name = "s"', 'name = "s"'], [], r'1\.toml: another scenario is named "s"'),
        (['name = "../s"'], [], r'0\.toml: name="\.\./s": it names folders'),
        ([""], ["huscf", "test_compare:HuSCF"], "would both be in .*0-huscf-seed-0: leave one"),
        ([""], ["huscf", "none:Such"], 'strategy="none:Such" cannot be imported'),
        (["", 'domains = "gone.npz"'], [], "gone.npz: no such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_first_run(
    texts: list[str], names: list[str], message: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.toml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        plan_runs(
            map(str, files),
            [],
            methods={name: {"strategy": name} for name in names},
            seeds=1,
            folder=tmp_path,
            base_dir=str(tmp_path),
        )


def test_nothing_is_said_of_what_one_class_and_one_domain_cannot_show(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = images(20)
    write_npz(here / "one.npz", LabelledImages(data.images, torch.zeros_like(data.labels)))
    text = SMALL.format(name="b").replace("one.npz,two.npz", "one.npz")
    (here / "b.toml").write_text(text.replace("num-classes = 3", ""))
    assert main(["compare", "b.toml", "--out", "out"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(here / "out" / "comparison.html")
    assert "Warning" not in said.err
    (row,) = table(here / "out")
    (summary,) = (here / "out").glob("*/summary.json")
    left = json.loads(summary.read_text())
    assert left["adjusted_rand_index"] is None and "utility" not in left["domains"]["one"]
    for name in ("accuracy", "utility", "adjusted", "Rand"):
        assert name not in said.err and not any(name in column for column in row)


def test_the_time_that_is_left_counts_runs_side_by_side() -> None:
    assert [time_left(60, 1, due, 1) for due in (1, 2, 5)] == [0, 60, 240]
    assert [time_left(60, ended, 4, 2) for ended in (1, 2)] == [60, 60]
    assert time_left(120, 3, 4, 2) == 0  # the fourth is about to end, too
    assert time_left(60, 1, 5, 8) == 0


def test_methods_are_keys_by_name(here: Path) -> None:
    """A method's keys go before the scenario's; one place has what a domain's clients have."""
    (here / "m.toml").write_text(
        '[Ours]\n["Whole nets, size only"]\nstrategy = "fedgan"\nwidth = 3\n'
        '["In one place"]\nstrategy = "fedgan"\none-client-per-domain = true\n'
    )
    (here / "b.toml").write_text(
        SMALL.format(name="b").replace("num-clients = 2", "num-clients = 6\nmax-client-images = 5")
    )
    runs = plan_runs(
        ["b.toml"],
        [],
        methods=read_methods("m.toml"),
        seeds=1,
        folder=here / "out",
        base_dir=str(here),
    )
    ours, whole, pooled = (run.config for run in runs)
    assert [run.method for run in runs] == ["Ours", "Whole nets, size only", "In one place"]
    assert [run.folder.name for run in runs][1] == "b-whole-nets-size-only-seed-0"
    assert (ours.strategy, ours.width, whole.strategy, whole.width) == ("huscf", 2, "fedgan", 3)
    assert (pooled.num_clients, pooled.max_client_images) == (2, 15)
    # Each of three clients has 5 images, 2 batches of 4; all have 15, 4 batches: 6 / 4 rounds.
    assert pooled.num_server_rounds == 2

    (here / "m.toml").write_text("width = 3\n")
    with pytest.raises(UserError, match=r'm\.toml: "width" is no table of run keys'):
        read_methods("m.toml")
    (here / "m.toml").write_text("[a]\none-client-per-domian = true\n")
    with pytest.raises(UserError, match='unknown key "one-client-per-domian": did you mean "one-'):
        read_methods("m.toml")
    (here / "b.toml").write_text(SMALL.format(name="b").replace("num-clients = 2", ""))
    with pytest.raises(UserError, match="5 clients are no multiple of 2 domains"):
        plan_runs(
            ["b.toml"],
            ["num-clients=5"],
            methods={"In one place": {"one-client-per-domain": True}},
            seeds=1,
            folder=here / "out",
            base_dir=str(here),
        )
    with pytest.raises(UserError, match='method "Wide": width=0'):
        plan_runs(
            ["a.toml"],
            [],
            methods={"Wide": {"width": 0}},
            seeds=1,
            folder=here / "out",
            base_dir=str(here),
        )
