"""A client's own audit: what it finds, what of that leaves it; it changes nothing else."""

import json
import logging
import stat
from pathlib import Path

import pytest
from conftest import images, tiny, write_npz
from flwr.app import Context, RecordDict
from flwr.common import Config, Scalar
from PIL import Image

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state, net_shapes, select_blocks, to_arrays
from huscf_flwr.nets.losses import Losses
from huscf_flwr.privacy.exposure import PLAIN
from huscf_flwr.privacy.own_audit import Seen
from huscf_flwr.split.cuts import Cut, client_blocks
from simulations.engine import Engine

CUT = Cut(1, 1, 1, 1)


def told(config: RunConfig, data: Path, round_: int = 1) -> dict[str, Scalar]:
    """What a node with data of its own adds to what it returns from a round."""
    context = Context(1, 7, {"data": str(data)}, RecordDict(), config.as_dict())  # type: ignore[arg-type]
    client = SplitGANClient(context)
    blocks = client_blocks(CUT, net_shapes(config.net_spec))
    parameters = to_arrays(select_blocks(initial_state(config.net_spec, 0), blocks))
    order: Config = {"client": 0, "round": round_, "iterations": 1, "cut": str(CUT), "run": "7"}
    part = client.begin(parameters, order)
    part.results.append(Losses(0.0, 0.0))  # as if it had been trained
    _, _, metrics = client.finish(part, order)
    return {name: value for name, value in metrics.items() if name.startswith("seen-")}


def test_numbers_leave_a_device_and_pictures_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "huscf_flwr")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    data = write_npz(tmp_path / "own.npz", images(60))
    config = tiny(width=16, audit_every=2)
    assert told(config, data, round_=1) == {}
    found = told(config, data, round_=2)
    assert all(type(value) is float for value in found.values())
    seen = Seen.from_metrics(found)
    assert seen is not None
    assert seen.exposure(0, CUT, 3).word == PLAIN and seen.inverted.labels == 1.0
    assert seen.to_generate == 1.0 and seen.mean_image.ssim != seen.another.ssim
    picture = tmp_path / "state" / "huscf-flwr" / "runs" / "7" / "audit-client-0.png"
    assert Image.open(picture).size[1] == 2 * (48 + 4) + 4  # real images and rebuilt ones
    assert f"pictures of that in {picture}" in caplog.text
    for folder in (picture.parent, picture.parents[1], picture.parents[2]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_goes_wrong_in_an_audit_costs_the_client_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert told(tiny(audit_every=1), write_npz(tmp_path / "few.npz", images(5))) == {}
    assert "all its images are in one batch" in caplog.text
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "huscf-flwr").mkdir(parents=True)
    (tmp_path / "other" / "huscf-flwr" / "runs").touch()  # where its pictures would go
    assert told(tiny(audit_every=1), write_npz(tmp_path / "own.npz", images(60))) == {}
    assert "client 0: not audited: " in caplog.text


def test_with_noise_there_is_no_audit_as_it_would_be_of_images_without() -> None:
    with pytest.raises(UserError, match="audit-every=1: with image-noise or label-epsilon"):
        tiny(audit_every=1, image_noise=2.0)


def test_a_run_shows_what_its_clients_found_and_is_otherwise_the_same(
    folder: Path, few_steps: None
) -> None:
    runs = {
        every: Engine(
            tiny(width=16, audit_every=every, num_server_rounds=2, output_dir=str(every)),
            str(folder),
        ).run()
        for every in (0, 2)
    }
    generators = [(run / "generator-cluster-0.safetensors").read_bytes() for run in runs.values()]
    assert generators[0] == generators[1]
    summary = json.loads((runs[2] / "summary.json").read_text())["own_audit"]
    assert summary["after_round"] == 1 and sorted(summary["clients"]) == ["0", "1", "2"]
    for client in summary["clients"].values():
        assert client["attacks"]["inversion"]["ssim"] > 0.9
    page = (runs[2] / "report.html").read_text()
    assert "Found by the clients themselves" in page
    assert "Not measured for this run" in (runs[0] / "report.html").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"seen-inverted-ssim": 2.0}, "seen-inverted-ssim=2.0 must be from -1 to 1"),
        ({"seen-labels": "all"}, "seen-labels='all' must be from 0 to 1"),
        ({"seen-another-psnr": float("nan")}, "seen-another-psnr=nan must be"),
        ({"seen-mean-image-ssim": None}, "seen-mean-image-ssim=None must be"),
    ],
)
def test_what_a_client_tells_is_checked(spoil: dict[str, Scalar], message: str) -> None:
    good: dict[str, Scalar] = {
        f"seen-{name}-{kind}": 0.5
        for name in ("inverted", "mean-image", "another")
        for kind in ("ssim", "psnr")
    }
    seen = Seen.from_metrics({**good, "generator-loss": 1.0})
    assert seen is not None and seen.as_metrics() == good and seen.to_generate is None
    assert Seen.from_metrics({"generator-loss": 1.0}) is None
    with pytest.raises(ValueError, match=message):
        Seen.from_metrics({**good, **spoil})


def test_images_that_are_too_small_to_compare_are_refused() -> None:
    with pytest.raises(UserError, match="needs images of 12 pixels or more"):
        tiny(audit_every=1, image_size=8)
