"""A trained generator on its own: save, load, sample."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from huscf_flwr.errors import UserError
from huscf_flwr.files import replacing
from huscf_flwr.nets import GEN, NetSpec, PartialGAN, State, net_shapes

_FORMAT = "huscf-generator-1"
_CHUNK = 500  # images generated at a time, so that memory stays flat


class Generator(nn.Module):
    """The joined blocks of one generator, in evaluation mode."""

    def __init__(self, spec: NetSpec, state: State, device: torch.device | str = "cpu") -> None:
        """Build from a state that holds all `gen` blocks; other names are ignored."""
        super().__init__()
        self.spec = spec
        shapes = net_shapes(spec)
        self.latent_size = shapes.latent_size
        nets = PartialGAN(spec, state, gen=range(len(shapes.gen)), disc=(), device=device)
        self.gen = nets.gen
        self.requires_grad_(False).eval()

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] from latent vectors (n, latent_size) and labels (n,)."""
        first, *rest = self.gen.values()
        out: Tensor = first(latent, labels)
        for block in rest:
            out = block(out)
        return out

    def sample(
        self, n: int, labels: Tensor | int | None = None, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Generate images.

        Parameters
        ----------
        n: how many, at least 1.
        labels: int64 (n,), or one label for all; None deals all classes in turn.
        seed: the same seed gives the same images; None gives new ones.

        Returns
        -------
        images, float32 (n, C, H, W) in [-1, 1], and labels, int64 (n,), both on the CPU.

        Raises
        ------
        UserError: n below 1, or a label outside the classes.
        """
        if n < 1:
            raise UserError(f"cannot generate {n} images: at least 1 is needed")
        classes = self.spec.num_classes
        if labels is None:
            labels = torch.arange(n) % classes
        elif isinstance(labels, int):
            labels = torch.full((n,), labels)
        if len(labels) != n:
            raise UserError(f"{len(labels)} labels for {n} images")
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"label {int(labels.min() if labels.min() < 0 else labels.max())}: "
                f"this generator knows 0 to {classes - 1}"
            )
        random = np.random.default_rng(seed)
        device = next(self.parameters()).device
        images = []
        for part in labels.split(_CHUNK):
            latent = random.standard_normal((len(part), self.latent_size), dtype=np.float32)
            made = self(torch.from_numpy(latent).to(device), part.to(device))
            images.append(made.float().cpu())
        return torch.cat(images), labels

    def save(self, path: Path) -> None:
        """Write parameters and everything needed to rebuild the net."""
        state = {f"{GEN}.{name}": v.contiguous() for name, v in self.gen.state_dict().items()}
        header = {_FORMAT: json.dumps(asdict(self.spec))}  # one key: their order is random
        with replacing(path) as aside:
            safetensors.torch.save_file(state, aside, metadata=header)


def load_generator(path: str | Path) -> Generator:
    """Load a generator that a run left.

    Raises
    ------
    UserError: the file is missing, or is not a generator.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a generator: {error}") from None
    if _FORMAT not in header:
        raise UserError(f"{path}: a safetensors file, but not a generator that a run left")
    return Generator(NetSpec(**json.loads(header[_FORMAT])), state)
