"""The page that shows a run, and TensorBoard's files: what is in them, and that they are safe."""

import csv
import html
import importlib.util
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images, tiny, write_npz
from PIL import Image

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.data.partition import client_data
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.evaluation.scores import CHEAP_SCORES
from huscf_flwr.report import page as page_module
from huscf_flwr.report import writer
from huscf_flwr.report.files import COSTS, read_run
from huscf_flwr.report.grids import by_class
from huscf_flwr.report.page import write_page
from huscf_flwr.report.page_samples import samples
from huscf_flwr.report.template import SCRIPT
from huscf_flwr.report.writer import RunReport
from simulations.engine import Engine

pytestmark = pytest.mark.usefixtures("few_steps")

HOSTILE = '"><script>alert(1)</script>&<img src=http://x.y/z.png>\n\u2028'
SECTIONS = ("scores", "training", "samples", "clusters", "plan", "data", "costs", "config")
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


def shown(**settings: Any) -> RunConfig:
    """Scored in round 2 and at the end, on a domain whose name a formula could begin in."""
    return tiny(**{"domains": "one.npz,tw$o.npz", "evaluate_every": 2, **settings})


def write_domains(folder: Path) -> str:
    for seed, name in enumerate(("one", "tw$o")):
        write_npz(folder / f"{name}.npz", images(30, seed=seed))
    return str(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; tests copy it before they change it."""
    base = write_domains(tmp_path_factory.mktemp("base"))
    return Engine(shown(output_dir="out", tensorboard=TENSORBOARD), base).run()


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def scripts(page: str) -> list[str]:
    return re.findall(r"<script[^>]*>(.*?)</script", page, re.DOTALL)


def sources(page: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', page)


def test_a_run_leaves_a_page_that_needs_nothing_else(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    pictures = sources(page)
    # Curves, training, clusters, weights now and then, timeline, data; two pairs, in the headline
    # and beside the grids; grids of 3 and of 2 rounds, the last in the headline's pairs, too; and
    # of each cluster what is between classes and what is nearest to real images.
    assert len(pictures) == page.count("<img") == 7 + 4 + 2 + 5 + 2 * 2
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", source) for source in pictures)
    assert scripts(page) == [SCRIPT] and not re.search(r"https?://", page)
    for section in SECTIONS:
        assert f'<h2 id="{section}">' in page and f'href="#{section}"' in page
    assert page.count('alt="') == len(pictures) and 'alt=""' not in page
    names = re.findall(r'<div class="scroll" role="region" aria-label="(.*?)" tabindex="0">', page)
    assert all(names) and len(names) == page.count("<table>")
    ends = [row[-1] for row in read_run(finished).curves().values()]
    losses = ", ".join(f"{r.values['generator_loss']:.4g} for {r.domain}" for r in ends)
    assert f"Line charts over the rounds, which end at generator loss: {losses}; " in page
    for shown in ("image score", "utility: accuracy", "judge gradient", "peak memory", "device-1"):
        assert shown in page
    assert "predicted for the devices of paper" in page
    assert "frechet distance classifier (lower is better)" in page
    assert "frechet distance classifier: seed" in page and "seed (lower is better)" not in page
    assert 'http-equiv="refresh"' not in page
    assert not list(finished.rglob(".*"))


def test_the_headline_is_utility_beside_that_of_real_images(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    headline = page[page.index('<div class="cards">') : page.index("<dl>")]
    for domain, found in json.loads((finished / "summary.json").read_text())["domains"].items():
        real = found["details"]["utility"]["real"]["accuracy"]
        assert f"<h2>{domain}</h2>" in headline
        assert f"<strong>{found['utility']['accuracy']:.3f}</strong> utility" in headline
        assert f"(real images {real:.3f})" in headline
    assert headline.count("<img") == 4


def test_the_page_says_how_to_repeat_the_run_and_what_it_took(finished: Path) -> None:
    page, run = (finished / "report.html").read_text(), read_run(finished)
    command = f"huscf train --config {finished / 'config.toml'} output-dir="
    assert f"<pre>{command}</pre>" in page
    for link in re.findall(r'<a href="([^#"]+)"', page):
        assert (finished / link).is_file()
    assert page.count('<a href="generator-cluster-') == 2 * 2  # with their cards
    for name in ("python", "torch", "processor", "cores", "memory"):
        assert f'<th scope="row">{name}</th>\n<td>{run.origin[name]}</td>' in page
    costs = json.loads((finished / "summary.json").read_text())["costs_per_client_and_round"]
    of_client = costs["sent_bytes"] + costs["received_bytes"]  # of three, in each of three rounds
    said = re.search("<dt>bytes exchanged</dt><dd>(.*) MiB</dd>", page)
    assert said and float(said[1]) == pytest.approx(9 * of_client / 2**20, rel=0.01)


def test_the_page_of_many_rounds_shows_grids_of_some(copied: Path) -> None:
    first = copied / "samples" / "round-001-cluster-0.png"
    for number in range(4, 400):
        shutil.copy(first, copied / "samples" / f"round-{number:03d}-cluster-0.png")
    found = samples(read_run(copied))
    assert found is not None
    rounds = found["rounds"]
    assert len(rounds) == 40 and rounds[0] == 1 and rounds[-1] == 399
    assert {b - a for a, b in itertools.pairwise(rounds)} == {10, 11}
    assert [list(cluster["frames"]) for cluster in found["clusters"]] == [rounds]


def test_the_command_makes_the_same_page_from_the_folder_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.parent)  # its newest run is this one
    page = finished / "report.html"
    before = page.read_text()
    page.unlink()
    assert main(["report"]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    charts = re.compile('data:image/svg[^"]*')  # they name their parts at random
    assert charts.sub("", page.read_text()) == charts.sub("", before)


@pytest.mark.parametrize(("rarely", "rounds"), [(50, [3]), (0, [1, 2, 3])])
def test_a_page_that_takes_little_time_is_written_after_every_round(
    rarely: int, rounds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here rounds are short, so that a page takes long, and no scores are due before the end."""
    pages: dict[int, str] = {}

    def watched(folder: Path) -> Path:
        path = write_page(folder)
        pages[read_run(folder).rounds[-1]] = path.read_text()
        return path

    monkeypatch.setattr(page_module, "write_page", watched)
    monkeypatch.setattr(writer, "_RARELY", rarely)
    Engine(shown(output_dir="out", evaluate_every=9), write_domains(tmp_path)).run()
    assert list(pages) == rounds
    refreshing = [number for number, page in pages.items() if 'http-equiv="refresh"' in page]
    assert refreshing == rounds[:-1]


def test_names_are_text_and_nothing_else(copied: Path) -> None:
    config = copied / "config.toml"
    lines = config.read_text().replace('name = ""', f"name = {json.dumps(HOSTILE)}")
    config.write_text(lines)
    for name in ("clusters.csv", "metrics.csv"):
        rewrite(copied / name, domain={"one": HOSTILE})
    page = write_page(copied).read_text()
    assert html.escape(HOSTILE, quote=False).replace('"', "&#34;") in page
    assert scripts(page) == [SCRIPT] and "<img src=http" not in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.toml", None, "not the folder of a run: it has no config.toml"),
        ("metrics.csv", None, "this run has finished no round"),
        ("metrics.csv", "round,domain,cluster\n", "have no round in common"),
        (
            "metrics.csv",
            "round,domain,seconds\n1,one,2\n",
            "metrics.csv: not as a run writes it: no 'clus",
        ),
        ("metrics.csv", "round,domain,cluster\n1,one,0\n", "no 'seconds'"),
        ("clusters.csv", "round,client\n1,x\n", "clusters.csv: not as a run writes it"),
        ("summary.json", "[1]", "summary.json: not as a run writes it: not a JSON object"),
        (
            "summary.json",
            '{"seconds": 1, "domains": [1]}',
            "the page cannot be made: AttributeError",
        ),
        ("plan.json", "{", "plan.json: not as a run writes it"),
        ("config.toml", "name = ", "config.toml: not as a run writes it"),
    ],
)
def test_broken_folders_end_with_one_line(
    name: str,
    content: str | None,
    message: str,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_text(content)
    assert main(["report", str(copied)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("huscf: ") and message in line


def test_a_run_that_is_going_on_has_a_page_too(copied: Path) -> None:
    for name in ("summary.json", "plan.json", "timeline.png"):
        (copied / name).unlink()
    shutil.rmtree(copied / "samples")
    with (copied / "metrics.csv").open("a") as file:
        scores = "," * (2 * len(CHEAP_SCORES) + len(COSTS))
        file.write(f"4,one,0{scores},1.0,1.0,1.0\n")  # and its clients were not written yet
    page = write_page(copied).read_text()
    assert "it is going on, or ended early" in page and "The cuts were listed" in page
    assert '<meta http-equiv="refresh"' in page and "<script" not in page
    assert len(sources(page)) == 6


def rewrite(path: Path, **columns: dict[str, str]) -> None:
    """Replace values of a table, by column."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {name: values.get(row[name], row[name]) for name, values in columns.items()}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def blank(path: Path, *columns: str) -> None:
    """Empty these columns of a table."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rewrite(path, **{name: dict.fromkeys((row[name] for row in rows), "") for name in columns})


def test_runs_without_domains_scores_or_cuts_have_a_page(copied: Path) -> None:
    """Own data, whole nets: no labels, no real images, no plan."""
    (copied / "plan.json").unlink()
    (copied / "summary.json").unlink()
    blank(copied / "metrics.csv", "domain", *CHEAP_SCORES)
    blank(copied / "clusters.csv", "domain", "labels", "cut")
    page = write_page(copied).read_text()
    assert "The clients hold their nets whole" in page and "Generated and real" not in page
    assert "No round has scores" in page and "of classes only they know" in page


def test_a_plan_without_times_is_shown_without_them(copied: Path) -> None:
    plan = json.loads((copied / "plan.json").read_text())
    del plan["times_s"], plan["devices"]
    (copied / "plan.json").write_text(json.dumps(plan))
    summary = json.loads((copied / "summary.json").read_text())
    del summary["latency"]["predicted_for"]
    (copied / "summary.json").write_text(json.dumps(summary))
    page = write_page(copied).read_text()
    assert "device-1" in page and '<th scope="row">predicted</th>' in page


def test_all_clusters_that_share_a_domain_are_shown_with_their_scores(copied: Path) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["domains"]["one"]["other_clusters"] = {"7": {"image_score": 1.2345}}
    (copied / "summary.json").write_text(json.dumps(summary))
    assert list(read_run(copied).last_scores()) == ["one", "one, cluster 7", "tw$o"]
    page = write_page(copied).read_text()
    assert '<th scope="col">one, cluster 7</th>' in page and "<td>1.234</td>" in page


def test_the_page_of_a_hundred_clients_and_many_clusters(copied: Path) -> None:
    labels = " ".join(["3"] * 62)
    rows = [
        f"{r},{k},{k % 9},0.1,0.2,{'abc'[k % 3]},186,,{labels}" for r in (1, 2) for k in range(100)
    ]
    head = "round,client,cluster,kld,weight,domain,size,cut,labels"
    (copied / "clusters.csv").write_text("\n".join([head, *rows]))
    head = "round,domain,cluster,image_score,frechet_distance,kernel_distance,extra_one,seconds"
    rows = [f"{r},{d},0,2.5,{30 / r},0.1,,1.5" for r in (1, 2) for d in "abc"]
    (copied / "metrics.csv").write_text("\n".join([head, *rows]))
    page = write_page(copied).read_text()
    assert "frechet distance (lower is better)" in page and "extra one" not in page


def test_clusters_csv_counts_the_labels_that_clients_were_dealt(finished: Path) -> None:
    dealt = shown().data_settings(str(finished.parent))
    for member in read_run(finished).last_members:
        _, part = client_data(dealt, client=member.client, clients=3)
        assert list(member.labels) == torch.bincount(part.labels, minlength=3).tolist()
        assert sum(member.labels) == member.size


def test_scores_stand_beside_those_of_real_images(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    found = json.loads((finished / "summary.json").read_text())["domains"]["one"]
    for value, real in (
        (found["image_score"], found["details"]["image_score"]["real"]),
        (found["utility"]["fpr"], found["details"]["utility"]["real"]["fpr"]),
    ):
        assert f"<td>{value:#.4g} ({real:#.4g})</td>" in page


def test_the_summary_has_a_readable_confusion_matrix_of_each_domain(finished: Path) -> None:
    text = (finished / "summary.json").read_text()
    assert re.search(r"^ +\[ \d+, \d+, \d+ \],$", text, re.MULTILINE)
    found = json.loads(text)["domains"]["one"]
    matrix = found["confusion_matrix"]
    right, images = sum(matrix[i][i] for i in range(3)), sum(map(sum, matrix))
    assert images == found["details"]["utility"]["n_real"]
    assert right / images == pytest.approx(found["utility"]["accuracy"])


def test_metrics_csv_has_each_score_beside_that_of_real_images(finished: Path) -> None:
    run = read_run(finished)
    assert run.scores == sorted(CHEAP_SCORES)
    for row in run.metrics:
        on_real = {name for name in row.values if name.endswith("_real")}
        assert on_real == {f"{name}_real" for name in CHEAP_SCORES if name in row.values}
    assert run.metrics[-1].values.keys() > set(CHEAP_SCORES)


def test_bytes_per_exchange_add_up(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    both = summary["bytes_per_exchange"]
    assert list(both) == [
        *("generate", "discriminate", "discriminator_step"),
        *("judge", "judge_gradient", "generator_step"),
    ]
    total = sum(way for ways in both.values() for way in ways.values())
    assert total == pytest.approx(summary["bytes_per_client_iteration"], abs=12)
    assert both["generate"]["up"] == both["generator_step"]["down"]


def test_real_images_are_laid_out_like_generated_ones(finished: Path) -> None:
    with (
        Image.open(finished / "samples" / "real-one.png") as real,
        Image.open(finished / "samples" / "round-001-cluster-0.png") as generated,
    ):
        assert real.size == generated.size
    data = images(20)
    grid = by_class(data, 4, rows=2)  # class 3 has no image
    assert grid.shape == (8, 1, 16, 16)
    assert torch.equal(grid[3], torch.full((1, 16, 16), -1.0))
    first = data.images[data.labels == 1][0].float() / 127.5 - 1
    assert torch.equal(grid[1], first)


def test_a_page_that_cannot_be_made_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = RunReport(shown(), str(tmp_path))
    report.start()
    with caplog.at_level("WARNING", logger="huscf_flwr"):
        report._write_page()
    line = caplog.messages[-1]
    assert line.startswith("report.html is not written: ") and "finished no round" in line


def test_generators_are_saved_before_they_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Evaluator, "full", fail)
    with pytest.raises(OSError):
        Engine(shown(num_server_rounds=1, output_dir="out"), write_domains(tmp_path)).run()
    assert (tmp_path / "out" / "generator-cluster-0.safetensors").exists()


@pytest.mark.skipif(not TENSORBOARD, reason="tensorboard is not installed")
def test_tensorboard_has_every_number_and_every_grid(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(finished / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"seconds", "generator_loss/one", "image_score/tw$o"} <= set(tags["scalars"])
    assert [event.step for event in found.Scalars("seconds")] == [1, 2, 3]
    assert [event.step for event in found.Scalars("image_score/one")] == [2, 3]
    assert len(found.Images("cluster 0")) == 3
    (last,) = found.Scalars("final utility: accuracy/one")
    assert last.step == 3 and 0 <= last.value <= 1
