"""`huscf audit`: a run's clients attacked, what was found in its folder, and what cannot be."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHAPES, images, tiny, write_npz
from PIL import Image

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation import classifier as classifier_module
from huscf_flwr.nets.saved import load_tensors
from huscf_flwr.privacy import audit as audit_module
from huscf_flwr.privacy import rebuilding
from huscf_flwr.privacy.rebuilding import DENOISED
from simulations import denoising, frontier
from simulations.audit import audit_run
from simulations.audited import Audited
from simulations.engine import Engine


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_module, "_steps", lambda *_: 20)
        patch.setattr(audit_module, "_DECODER_STEPS", 5)
        patch.setattr(rebuilding, "_INVERSION_STEPS", 5)
        yield


def trained(folder: Path, **settings: Any) -> Path:
    """A run of three clients, two of them of one domain."""
    folder.mkdir()
    write_npz(folder / "one.npz", images(30, seed=1))
    write_npz(folder / "two.npz", images(30, seed=2))
    config = tiny(**{"cuts": "1-1-1-1,2-2-2-2", "output_dir": "run", **settings})
    return Engine(config, str(folder)).run()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings: dict[str, Any] = {"server_blocks": "shared", "num_server_rounds": 2}
    return trained(tmp_path_factory.mktemp("audit") / "shared", **settings)


def test_what_was_found_is_in_the_runs_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(["audit", "run"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((run / "summary.json").read_text())["audit"]
    assert sorted(found["clients"]) == ["0", "1", "2"] and found["not_audited"] == []
    assert found["after_round"] == 2 and "2, one" in printed and "report.html" in printed
    page = (run / "report.html").read_text()
    for client in found["clients"].values():
        assert client["cut"] in printed and client["images"] in page
        for attack in client["attacks"].values():
            assert -1 <= attack["ssim"] <= 1 and 0 <= attack["labels"] <= 1
    assert set(found["product"]) and "What the nets tell of the images" in page
    # Real images and those of three attacks, one column for each image of a batch of four.
    side, between = 48, 4
    with Image.open(run / "audit" / "client-0.png") as strip:
        assert strip.size == (4 * (side + between) + between,) * 2
    before = found["clients"]
    assert audit_run(run, str(run.parent))["clients"] == before
    shutil.rmtree(run / "audit")
    assert main(["report", "run"]) == 0


def test_clients_are_attacked_with_what_they_would_begin_the_next_round_with(run: Path) -> None:
    """Shared blocks of the server are not those of a cluster's net."""
    audited = Audited(run, str(run.parent), seed=0)
    (kind,) = [members for members in audited.kinds() if members[0].client == 0]
    served = audited.served(kind[0])
    tensors, _ = load_tensors(run / "checkpoints" / "round-002.safetensors")
    for name, value in served.segments.state().items():
        assert torch.equal(value, tensors[f"server-0:{name}"])
    for name, value in served.sender.half.nets.state_dict().items():
        assert torch.equal(value, tensors[f"model-{kind[0].cluster}:{name}"])
    assert len(served.sender.half.nets.disc) == 2 and len(SHAPES.disc) == 5
    assert len(audited.victim(kind[0]).images) == audited.config.batch_size


def test_of_whole_nets_only_the_product_is_attacked(tmp_path: Path) -> None:
    folder = trained(tmp_path / "fedgan", strategy="fedgan", clusters="auto", num_server_rounds=1)
    found = audit_run(folder, str(folder.parent))
    assert found["clients"] == {} and found["product"]["0"]["by_discriminator"] is not None
    assert not list((folder / "audit").iterdir())


def test_with_noise_it_is_said_what_is_promised(tmp_path: Path) -> None:
    folder = trained(tmp_path / "noise", num_server_rounds=1, image_noise=2.0, label_epsilon=1.0)
    found = audit_run(folder, str(folder.parent))
    assert set(DENOISED) < set(found["clients"]["0"]["attacks"])
    assert (
        "epsilon 195.4 at delta 1e-05 for an image, epsilon 1 for its label"
        in (folder / "report.html").read_text()
    )


def test_a_frontier_takes_runs_together_that_differ_in_their_seed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    for name, seed, utility in (("a", 0, 0.5), ("b", 1, 0.7)):
        copy = shutil.copytree(run, tmp_path / "runs" / name)
        text = (copy / "config.toml").read_text()
        (copy / "config.toml").write_text(text.replace("seed = 0", f"seed = {seed}"))
        summary = json.loads((copy / "summary.json").read_text())
        attack = {"ssim": 0.75, "psnr": 1.0, "labels": utility}
        without = {"mean image of the class": {"ssim": 0.25}}
        client = {"attacks": {"one": attack, "two": {**attack, "ssim": 0.5}}}
        summary["audit"] = {"clients": {"0": {**client, "without_attack": without}}}
        for scores in summary["domains"].values():
            scores["utility"]["accuracy"] = utility
        (copy / "summary.json").write_text(json.dumps(summary))
    picture = tmp_path / "frontier.png"
    monkeypatch.setattr("sys.argv", ["frontier", str(tmp_path / "runs"), "--plot", str(picture)])
    frontier.main()
    assert "| 0 | - | 0.6000 ± 1.3 | 0.5000 ± 0 | 0.6000 ± 1.3 |" in capsys.readouterr().out
    assert Image.open(picture).size[0] > 500
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace("batch-size = 4", "batch-size = 5"))
    with pytest.raises(UserError, match="differs from other runs in batch-size, too"):
        frontier.main()


def test_noise_hides_more_the_more_there_is() -> None:
    config = RunConfig().settled(".")
    domain = load_domain(config.sources(".")[0], config.image_format)
    little, much = (
        denoising.found(replace(config, image_noise=level, label_epsilon=0.25), domain)
        for level in (0.5, 8.0)
    )
    assert little[0] > 0.2 > 0.05 > much[0] and little[1] > 0.9 > 0.3 > much[1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("data", "client 0 had other images than its domain has now"),
        ("own", "its clients had data of their own, which is not here"),
        ("summary", "this run is not finished"),
        ("checkpoints", "no checkpoint in it"),
        ("folder", "not the folder of a run"),
    ],
)
def test_what_cannot_be_audited_is_said(
    spoil: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = shutil.copytree(run.parent, tmp_path / "copy")
    monkeypatch.chdir(copy)
    summary = json.loads((copy / "run" / "summary.json").read_text())
    match spoil:
        case "data":
            write_npz(copy / "one.npz", images(36, seed=9))
        case "own":
            (copy / "run" / "summary.json").write_text(json.dumps({**summary, "partitions": 0}))
        case "summary":
            (copy / "run" / "summary.json").unlink()
        case "checkpoints":
            shutil.rmtree(copy / "run" / "checkpoints")
        case "folder":
            (copy / "run" / "config.toml").unlink()
    assert main(["audit", "run"]) == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
