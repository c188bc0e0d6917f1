"""What users type and supply: run config, data, and the one clear line that bad input gets."""

import argparse
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, images, write_npz

from huscf_flwr.cli import compare, main, train
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import BatchStream, to_uint8, to_unit
from huscf_flwr.data.draws import seeded
from huscf_flwr.errors import UserError
from huscf_flwr.keys import read_settings

pytestmark = pytest.mark.usefixtures("few_steps")


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


def test_true_and_false_are_read_as_such(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("download = true\n")
    assert RunConfig.from_mapping(read_settings(str(file), [])).download is True
    assert RunConfig.from_mapping(read_settings(None, ["download=true"])).download is True
    assert RunConfig.from_mapping(read_settings(str(file), ["download=false"])).download is False


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("widht=3", 'unknown key "widht": did you mean "width"\\?$'),
        ("num_clients=3", 'unknown key "num_clients": did you mean "num-clients"\\?$'),
        ("xyz=3", 'unknown key "xyz": known are .*width'),
        ("width=wide", "width='wide': must be a whole number"),
        ("width=0", "width=0: must be at least 1"),
        ("learning-rate=nan", "learning-rate=nan: must be finite"),
        ("learning-rate=0", "learning-rate=0.0: must be above 0"),
        ("channels=2", "channels=2: must be one of 0, 1, 3"),
        ("clusters=many", 'clusters="many": must be auto, domains, clients or a positive number'),
        ("straggler-timeout=4000", "straggler-timeout=4000 must be below round-timeout=3600"),
        ("cohort=0", 'cohort="0": must be all or a positive number'),
        ("cohort=some", 'cohort="some": must be all or a positive number'),
        ("domains=digits,digits", "names a domain twice"),
        ("width", '"width" is not key=value'),
        ("tensorboard=yes", "tensorboard='yes': must be true or false"),
        ("runner-bind=9100", 'runner-bind="9100": must be host:port'),
        ("runner-bind=0.0.0.0:9100", "runner-address must say"),
        ("domains=a/x.npz,b/x.npz", "file names must differ"),
        ("download=1", "download='1': must be true or false"),
        ("partition=odd", "partition=odd: must be one of iid, non-iid, highly-non-iid, dirich"),
        ("dirichlet-alpha=0", "dirichlet-alpha=0.0: must be above 0"),
        ("device=tpu", "device=tpu: must be one of auto, cpu, cuda"),
    ],
)
def test_wrong_settings_are_named(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig.from_mapping(read_settings(None, [pair]))


def test_a_stream_shows_every_image_once_an_epoch_and_repeats_itself() -> None:
    data = images(10)
    data.images.view(10, -1)[:, 0] = torch.arange(10)

    def stream(client: int = 1) -> BatchStream:
        return BatchStream(data, batch_size=4, latent_size=3, draws=seeded(5, client))

    marks = torch.cat([stream()[i].images.view(4, -1)[:, 0] for i in range(5)])
    assert sorted(to_uint8(marks)[:10].tolist()) == list(range(10))
    assert sorted(to_uint8(marks)[10:].tolist()) == list(range(10))
    again, other = stream()[3], stream(client=2)[3]
    assert torch.equal(again.latent, stream()[3].latent)
    assert not torch.equal(again.latent, other.latent)


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["domains=nope"], 'domain "nope": no folder or .npz file'),
        (["domains=digits,minst"], 'domain "minst": did you mean "mnist"? no folder or .npz'),
        (["domains=fwe.npz"], "/fwe.npz: no such file: did you mean"),
        (["domains=mnist"], "mnist: not found, or not whole, in the folder"),
        (["domains=none.npz"], "none.npz: no such file"),
        (["image-size=18"], "image-size=18: the net cgan needs a multiple of 4"),
        (["cuts=3-1-1-1"], "takes the middle block from the server"),
        (["num-clients=2", "clusters=3"], "clusters=3: more than the 2 clients"),
        (["domains=few.npz", "num-clients=3", "num-classes=3"], "at least 2 are needed"),
        (["colour=3"], 'unknown key "colour"'),
        (
            ["strategy=best"],
            'strategy="best": must be huscf, fedgan, clustered-fedgan, mdgan, fedsplitgan,',
        ),
        (["strategy=hucsf"], 'strategy="hucsf": did you mean "huscf"? must be huscf, fedgan,'),
        (["num-classes=3"], "but num-classes=3 allows 0 to 2: set num-classes=10"),
        (["--config", "none.toml"], "none.toml: no such file"),
        (["--config", "rnu.toml"], 'rnu.toml: no such file: did you mean "run.toml"?'),
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
    write_npz(tmp_path / "few.npz", images(6))
    (tmp_path / "run.toml").touch()
    assert main(["train", *settings]) == 1
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("huscf: ") and message in last
    assert "Traceback" not in error


def test_options_and_keys_come_in_any_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed: list[argparse.Namespace] = []
    for module in (train, compare):
        monkeypatch.setattr(module, "_run", parsed.append)
    pairs = ["width=3", "seed=1"]
    for order in (
        ["--config", "f", *pairs],
        [*pairs, "--config", "f"],
        [pairs[0], "--config", "f", pairs[1]],
    ):
        assert main(["train", *order]) == 0
        assert (parsed[-1].config, parsed[-1].settings) == ("f", pairs)
    assert main(["compare", "a.toml", "--seeds", "2", "width=3", "--out", "o", "b.toml"]) == 0
    assert (parsed[-1].seeds, parsed[-1].out) == (2, "o")
    assert parsed[-1].inputs == ["a.toml", "width=3", "b.toml"]

    parsed.clear()
    for wrong, named in (
        (["compare", "a.toml", "--seeds", "2", "width=3", "--sedes"], "--sedes"),
        (["train", "width=3", "--sedes", "2"], "--sedes (a key of a run is set by key=value)"),
        (["report", "one", "two"], "two"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
        said = capsys.readouterr().err
        assert said.startswith(f"usage: huscf {wrong[0]} ")
        assert f"huscf {wrong[0]}: error: unrecognized arguments: {named}" in said
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--seeds", "2"])
    assert "required: FILE|key=value" in capsys.readouterr().err
    assert not parsed


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"huscf {project['version']}\n"
