"""What is beside a generator: its card, and what lies between its classes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, tiny, write_npz

import huscf_flwr
from huscf_flwr.report.page import write_page
from simulations.engine import Engine

pytestmark = pytest.mark.usefixtures("few_steps")

HOSTILE = '"><script>alert(1)</script>&<img src=http://x.y/z.png>\n\u2028'
DOMAINS = ("one", "two")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; tests copy it before they change it."""
    base = tmp_path_factory.mktemp("base")
    for seed, name in enumerate(DOMAINS):
        write_npz(base / f"{name}.npz", images(30, seed=seed))
    return Engine(tiny(output_dir="out"), str(base)).run()


def test_every_generator_has_a_card(finished: Path, tmp_path: Path) -> None:
    card = (finished / "generator-cluster-0.md").read_text()
    domain = "one" if "# Generator of one" in card else "two"
    scores = json.loads((finished / "summary.json").read_text())["domains"][domain]
    assert f"| utility: accuracy | {scores['utility']['accuracy']:.4g} |" in card
    real = scores["details"]["frechet_distance_classifier"]["real"]
    value = scores["frechet_distance_classifier"]
    assert f"| frechet distance classifier | {value:.4g} | {real:.4g} |" in card
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", card)
    assert (finished / picture).exists() and picture.startswith("samples/round-003-")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=finished, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing hid their data" in card
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    (copied / "summary.json").unlink()
    classes = {name: [HOSTILE, "b|c", "*d*"] for name in DOMAINS}
    (copied / "classes.json").write_text(json.dumps(classes))
    write_page(copied)
    card = (copied / "generator-cluster-1.md").read_text()
    assert "Not scored yet." in card and "<script" not in card and "<img" not in card
    assert r"b\|c, \*d\*." in card


def test_between_classes_lie_the_classes(finished: Path) -> None:
    generator = huscf_flwr.load_generator(finished / "generator-cluster-0.safetensors")
    ways = generator.between(3, seed=5)
    assert ways.shape == (3, 3, 1, 16, 16)
    latent = np.random.default_rng(5).standard_normal((3, generator.latent_size), np.float32)
    ends = generator(torch.from_numpy(latent), torch.tensor([1, 2, 0]))
    torch.testing.assert_close(ways[:, 2], ends)
    assert torch.equal(ways[:, 0], generator(torch.from_numpy(latent), torch.arange(3)))
    assert (ways[:, 1] - ways[:, 0]).abs().max() > 0
