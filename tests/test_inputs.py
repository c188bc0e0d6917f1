"""What users type and supply: run config, data, and the one clear line that bad input gets."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROJECT, images, write_npz

from huscf_flwr.batches import BatchStream, to_uint8, to_unit
from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig, read_settings
from huscf_flwr.data.partition import client_data
from huscf_flwr.data.sources import ImageFormat, load_domain
from huscf_flwr.errors import UserError

FORMAT = ImageFormat(16, 1, 3)
GREY = ImageFormat(16, 1, 10)


def test_pyproject_has_every_key_with_its_default() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == RunConfig().as_dict()


def test_settings_are_read_by_their_keys_types(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('width = 8\nlearning-rate = 1\ndomains = "letters"\n')
    typed = ["width=4", "clusters=2", "tensorboard=true"]
    config = RunConfig.from_mapping(read_settings(str(file), typed))
    assert (config.width, config.learning_rate, config.domains) == (4, 1.0, "letters")
    assert config.clusters == "2" and config.tensorboard is True
    file.write_text("tensorboard = true\n")
    for pairs, value in (([], True), (["tensorboard=false"], False)):
        assert RunConfig.from_mapping(read_settings(str(file), pairs)).tensorboard is value


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("widht=3", 'unknown key "widht": known are .*width'),
        ("width=wide", "width='wide': must be a whole number"),
        ("width=0", "width=0: must be at least 1"),
        ("learning-rate=nan", "learning-rate=nan: must be finite"),
        ("learning-rate=0", "learning-rate=0.0: must be above 0"),
        ("channels=2", "channels=2: must be one of 1, 3"),
        ("clusters=many", 'clusters="many": must be auto or a positive number'),
        ("straggler-timeout=4000", "straggler-timeout=4000 must be below round-timeout=3600"),
        ("min-cohort=9", "min-cohort=9 .* exceed max-batch=512: it must be at least 576"),
        ("domains=digits,digits", "names a domain twice"),
        ("width", '"width" is not key=value'),
        ("tensorboard=yes", "tensorboard='yes': must be true or false"),
        ("runner-bind=9100", 'runner-bind="9100": must be host:port'),
        ("runner-bind=0.0.0.0:9100", "runner-address must say"),
        ("domains=a/x.npz,b/x.npz", "file names must differ"),
        ("device=tpu", "device=tpu: must be one of auto, cpu, cuda"),
    ],
)
def test_wrong_settings_are_named(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig.from_mapping(read_settings(None, [pair]))


def _arrays(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


PIXELS, LABELS = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"not a zip"), "not a readable .npz"),
        (lambda path: path.write_bytes(b""), "not a readable .npz"),
        (_arrays(images=PIXELS), 'lacks the array "labels"'),
        (_arrays(images=PIXELS / 255, labels=LABELS), "float64 .* must be uint8"),
        (_arrays(images=PIXELS[0], labels=LABELS), r"\(8, 8\); they must be"),
        (_arrays(images=PIXELS[..., None].repeat(2, 3), labels=LABELS), "2 channels"),
        (_arrays(images=PIXELS, labels=LABELS[:3]), r"integers of shape \(4,\)"),
        (_arrays(images=PIXELS, labels=LABELS * 1.0), "labels are float64"),
        (_arrays(images=PIXELS, labels=LABELS + 1), "labels from 1 to 3.* allows 0 to 2"),
        (_arrays(images=PIXELS, labels=np.array([None] * 4)), "not a readable .npz"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(UserError, match=rf"own.npz: .*{message}"):
        load_domain(str(path), FORMAT)


def test_files_of_any_size_and_colour_are_brought_to_the_runs_format(tmp_path: Path) -> None:
    path = str(write_npz(tmp_path / "colour.npz", images(10, size=20, channels=3)))
    domain = load_domain(path, FORMAT)
    assert domain.name == "colour"
    assert domain.train.images.shape == (8, 1, 16, 16)
    assert domain.test.images.shape == (2, 1, 16, 16)
    assert load_domain(path, ImageFormat(24, 3, 3)).train.images.shape == (8, 3, 24, 24)


def test_resizing_keeps_grey_levels(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.full((5, 7, 9), 200, np.uint8), labels=[0] * 5)
    found = load_domain(str(tmp_path / "x.npz"), FORMAT).train.images
    assert found.unique().tolist() == [200]


@pytest.mark.parametrize(
    ("name", "train", "test"), [("digits", 1438, 359), ("letters", 1600, 400)]
)
def test_built_in_domains(name: str, train: int, test: int) -> None:
    domain = load_domain(name, GREY)
    assert (len(domain.train), len(domain.test)) == (train, test)
    assert domain.train.labels.unique().tolist() == list(range(10))
    assert domain.train.images.float().std() > 40


def test_clients_share_their_domain_without_overlap(tmp_path: Path) -> None:
    data = images(25)
    data.images.view(25, -1)[:, 0] = torch.arange(25)  # a mark for every image
    path = str(write_npz(tmp_path / "own.npz", data))
    parts = [
        client_data([path, "digits"], FORMAT16, client=k, clients=6, seed=1) for k in range(6)
    ]
    assert [domain.name for domain, _ in parts] == ["own", "digits"] * 3
    marks = [part.images.view(len(part), -1)[:, 0].tolist() for _, part in parts[::2]]
    assert sorted(len(part) for part in marks) == [6, 7, 7]
    assert len({mark for part in marks for mark in part}) == 20


FORMAT16 = ImageFormat(16, 1, 10)


def test_too_few_images_are_named(tmp_path: Path) -> None:
    path = str(write_npz(tmp_path / "own.npz", images(5)))
    with pytest.raises(UserError, match="client 2 has 1 training images; at least 2"):
        client_data([path], FORMAT, client=2, clients=3, seed=0)


def test_a_stream_shows_every_image_once_an_epoch_and_repeats_itself() -> None:
    data = images(10)
    data.images.view(10, -1)[:, 0] = torch.arange(10)

    def stream() -> BatchStream:
        return BatchStream(data, batch_size=4, latent_size=3, seed=5, client=1)

    marks = torch.cat([stream()[i].images.view(4, -1)[:, 0] for i in range(5)])
    assert sorted(to_uint8(marks)[:10].tolist()) == list(range(10))
    assert sorted(to_uint8(marks)[10:].tolist()) == list(range(10))
    again, other = stream()[3], BatchStream(data, batch_size=4, latent_size=3, seed=5, client=2)[3]
    assert torch.equal(again.latent, stream()[3].latent)
    assert not torch.equal(again.latent, other.latent)


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["domains=nope"], '"nope" is neither built in'),
        (["domains=none.npz"], "none.npz: no such file"),
        (["image-size=18"], "image-size=18: the net cgan needs a multiple of 4"),
        (["cuts=3-1-1-1"], "takes the middle block from the server"),
        (["num-clients=2", "clusters=3"], "clusters=3: more than the 2 clients"),
        (["domains=few.npz", "num-clients=3", "num-classes=3"], "at least 2 are needed"),
        (["colour=3"], 'unknown key "colour"'),
        (["strategy=best"], 'strategy="best": must be huscf, fedgan, or module:Class'),
        (["num-classes=3"], "num-classes=3 allows 0 to 2"),
        (["--config", "none.toml"], "none.toml: cannot be read as TOML"),
        (["net=nope"], 'net="nope" is not registered'),
        (["output-dir=/proc/none"], "cannot be written"),
    ],
)
def test_bad_input_ends_with_one_line(
    settings: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "few.npz", images(5))
    assert main(["train", *settings]) == 1
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("huscf: ") and message in last
    assert "Traceback" not in error
