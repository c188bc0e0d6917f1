"""Files of a run: read back as they were written, whole, and not begun in vain."""

import sys
import tomllib
from pathlib import Path

import pytest
from conftest import tiny

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.report.writer import RunReport
from huscf_flwr.system.files import replacing


def test_a_config_is_read_back_whatever_text_is_in_it(tmp_path: Path) -> None:
    config = tiny(name='🎈 "\\é\x7f\x01\n\u2028', output_dir="out")
    report = RunReport(config, str(tmp_path))
    report.start()
    text = (report.folder / "config.toml").read_bytes().decode()
    assert RunConfig.from_mapping(tomllib.loads(text)) == config


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as aside:
        aside.write_text("old")
    with pytest.raises(KeyError), replacing(path) as aside:
        aside.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_missing_tensorboard_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tensorboard=true"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("huscf: tensorboard=true: ") and "pip install tensorboard" in last
    assert not (tmp_path / "runs").exists()
