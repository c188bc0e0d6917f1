"""A trained generator on its own: save, load, sample."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from huscf_flwr.data.format import SoundFormat
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import GEN, NetSpec, PartialGAN, State, is_registered, net_shapes, run_blocks
from huscf_flwr.nets.saved import write

_FORMAT = "huscf-generator-1"
_SOUND = "sound"  # in that
_CHUNK = 500  # images generated at a time, so that memory stays flat


class Generator(nn.Module):
    """The joined blocks of one generator, in evaluation mode."""

    def __init__(self, spec: NetSpec, state: State, sound: SoundFormat | None = None) -> None:
        """Build from a state that holds all `gen` blocks; other names are ignored.

        `sound` is of what its images are pictures, if they are pictures of that.
        """
        super().__init__()
        self.spec, self.sound = spec, sound
        shapes = net_shapes(spec)
        self.latent_size = shapes.latent_size
        nets = PartialGAN(spec, state, gen=range(len(shapes.gen)), disc=())
        self.gen = nets.gen
        self.requires_grad_(False).eval()

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] from latent vectors (n, latent_size) and labels (n,)."""
        return run_blocks(self.gen.values(), latent, labels)

    def sample(
        self, n: int, labels: Tensor | int | None = None, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Generate images.

        Parameters
        ----------
        n: how many, at least 1.
        labels: int64 (n,), or one label for all; None deals all classes in turn.
        seed: the same seed, at least 0, gives the same images; None gives new ones.

        Returns
        -------
        images, float32 (n, C, H, W) in [-1, 1], and labels, int64 (n,), both on the CPU.

        Raises
        ------
        UserError: n below 1, a seed below 0, or a label outside the classes.
        """
        if n < 1:
            raise UserError(f"cannot generate {n} images: at least 1 is needed")
        if seed is not None and seed < 0:
            raise UserError(f"seed {seed}: must be at least 0")
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
        return torch.cat([*self.in_parts(labels, seed)]), labels

    def in_parts(self, labels: Tensor, seed: int | None = None) -> Iterator[Tensor]:
        """The images of `sample`, some at a time: for more than memory has room for.

        Parameters
        ----------
        labels: int64 (n,), within the classes.
        seed: as for `sample`.
        """
        random = np.random.default_rng(seed)
        device = next(self.parameters()).device
        for part in labels.split(_CHUNK):
            latent = random.standard_normal((len(part), self.latent_size), dtype=np.float32)
            made = self(torch.from_numpy(latent).to(device), part.to(device))
            yield made.float().cpu()

    def between(self, steps: int, seed: int) -> Tensor:
        """Images on the way from each class to the next, of one latent vector each.

        Between classes there are no labels: what the first block makes of both is mixed.

        Parameters
        ----------
        steps: images of each way, at least 2; the first is of the class itself.
        seed: as for `sample`.

        Returns
        -------
        float32 (num_classes, steps, C, H, W) in [-1, 1], on the CPU; the last class leads to the
        first.
        """
        classes = self.spec.num_classes
        random = np.random.default_rng(seed)
        latent = torch.from_numpy(
            random.standard_normal((classes, self.latent_size), dtype=np.float32)
        )
        first, *rest = self.gen.values()
        labels = torch.arange(classes)
        begin, end = first(latent, labels), first(latent, labels.roll(-1))
        ways = [torch.lerp(begin, end, step / (steps - 1)) for step in range(steps)]
        return torch.stack([run_blocks(rest, way).float().cpu() for way in ways], dim=1)

    def save(self, path: Path) -> None:
        """Write parameters and everything needed to rebuild the net; raises OSError."""
        state = {f"{GEN}.{name}": v.contiguous() for name, v in self.gen.state_dict().items()}
        facts = asdict(self.spec)
        if self.sound is not None:
            facts[_SOUND] = asdict(self.sound)
        header = {_FORMAT: json.dumps(facts)}  # one key: their order is random
        write(path, state, header)


def load_generator(path: str | Path, net: str = "") -> Generator:
    """Load a generator that a run left.

    Parameters
    ----------
    path: the file.
    net: the generator's net, as in the run key `net`; `module:name` imports the module. Empty
        takes the name in the file, which must be registered: what a file names is not imported,
        for the file may be anybody's.

    Raises
    ------
    UserError: the file is missing or not a whole generator, or the net is not registered.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a generator: {error}") from None
    if _FORMAT not in header:
        raise UserError(f"{path}: a safetensors file, but not a generator that a run left")
    try:
        facts = json.loads(header[_FORMAT])
        sound = SoundFormat(**facts.pop(_SOUND)) if _SOUND in facts else None
        spec = NetSpec(**facts)
    except (AttributeError, UserError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its header describes no generator: {error}") from None
    return generator_from(path, spec, state, net, sound)


def generator_from(
    path: str | Path, spec: NetSpec, state: State, net: str, sound: SoundFormat | None
) -> Generator:
    """A generator of what a file holds; see `load_generator`, also for what it raises."""
    name = spec.net.rpartition(":")[2]
    if not net and not is_registered(name):
        needed = spec.net if ":" in spec.net else f"module:{name}"
        raise UserError(
            f"{path}: this generator needs the net {spec.net!r}: if you trust that module, pass "
            f"--net {needed!r}, or net={needed!r} in Python"
        )
    spec = replace(spec, net=net or name)
    try:
        return Generator(spec, state, sound)
    except UserError:
        raise
    except Exception as error:  # whatever odd numbers and shapes make a net's builder raise
        raise UserError(f"{path}: holds no generator of {spec}: {cause(error)}") from error
