"""Conditional GANs as two ordered lists of blocks, and the registry that names them.

A *net* here is what can be cut: a generator and a discriminator, each a list of modules. The first
block of either list is called with `(input, labels)`, every other block with the output of the one
before. Nothing outside this module knows how many blocks there are or what is inside them.
"""

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from huscf_flwr.errors import UserError

GEN = "gen"
DISC = "disc"

State = dict[str, Tensor]
"""Parameters and buffers by name: `<gen|disc>.<block>.<name inside the block>`."""


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """What a net is built for.

    Attributes
    ----------
    net: name in the registry, or `module:name` to import the module that registers it first.
    image_size: height and width of the images, in pixels.
    channels: colour channels of the images.
    num_classes: number of labels.
    width: channels of the narrowest convolution (the paper uses 64).
    """

    net: str = "cgan"
    image_size: int
    channels: int
    num_classes: int
    width: int

    def __post_init__(self) -> None:
        """Raises `UserError` unless the net is text and all else are whole numbers from 1 on."""
        if type(self.net) is not str:
            raise UserError(f"net={self.net!r}: must be text")
        for name, value in vars(self).items():
            if name != "net" and (type(value) is not int or value < 1):
                key = name.replace("_", "-")
                raise UserError(f"{key}={value!r}: must be a whole number, at least 1")


@dataclass(frozen=True)
class Blocks:
    """The two lists of blocks of a conditional GAN.

    Attributes
    ----------
    generator: from `(latent (B, latent_size), labels (B,))` to images `(B, C, H, W)` in [-1, 1].
    discriminator: from `(images, labels)` to one logit per image, `(B, 1)`.
    latent_size: length of the latent vector.
    """

    generator: list[nn.Module]
    discriminator: list[nn.Module]
    latent_size: int


BlockIndices = Mapping[str, Iterable[int]]
"""Indices of some blocks of both nets, by `gen` and `disc`."""

Builder = Callable[[NetSpec], Blocks]
_REGISTRY: dict[str, Builder] = {}


def register_net(name: str) -> Callable[[Builder], Builder]:
    """Register the decorated builder under `name`, for the run key `net`."""

    def register(builder: Builder) -> Builder:
        _REGISTRY[name] = builder
        return builder

    return register


def is_registered(name: str) -> bool:
    """Whether a builder is registered under `name`; nothing is imported to find out."""
    return name in _REGISTRY


def build_blocks(spec: NetSpec) -> Blocks:
    """Build both nets of `spec`, freshly initialised on the current default device.

    Raises
    ------
    UserError: no such net, or the net cannot be built for this image size.
    """
    module, _, name = spec.net.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f'net="{spec.net}": cannot import {module}: {error}') from error
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        raise UserError(
            f'net="{spec.net}" is not registered: known are {known}; "module:name" imports the '
            "module that registers it"
        )
    return _REGISTRY[name](spec)


class PartialGAN(nn.Module):
    """Some of the blocks of a net: a client's ends, the server's segments, or all of it.

    Blocks keep their index, so that parameters have the same name wherever they live.
    """

    def __init__(
        self,
        spec: NetSpec,
        state: State,
        *,
        gen: Iterable[int],
        disc: Iterable[int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the blocks with the indices `gen` and `disc`, and no others, from `state`.

        Raises
        ------
        RuntimeError: `state` lacks a name of these blocks, or has one in another shape.
        """
        super().__init__()
        with torch.device("meta"):
            blocks = build_blocks(spec)
        self.gen = nn.ModuleDict({str(i): blocks.generator[i] for i in sorted(gen)})
        self.disc = nn.ModuleDict({str(i): blocks.discriminator[i] for i in sorted(disc)})
        own = {name: state[name] for name in self.state_dict() if name in state}
        for dtype in {value.dtype for value in own.values() if value.is_floating_point()}:
            self.to(dtype)
        self.to_empty(device=device)
        self.load_state_dict(own)


def initial_state(spec: NetSpec, seed: int, dtype: torch.dtype = torch.float32) -> State:
    """All parameters and buffers of the whole net, freshly initialised from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _whole(spec).to(dtype).state_dict()


def _whole(spec: NetSpec) -> nn.Module:
    blocks = build_blocks(spec)
    whole = nn.Module()
    whole.gen = nn.ModuleDict({str(i): b for i, b in enumerate(blocks.generator)})
    whole.disc = nn.ModuleDict({str(i): b for i, b in enumerate(blocks.discriminator)})
    return whole


@dataclass(frozen=True)
class NetShapes:
    """Sizes that follow from a `NetSpec` alone.

    Attributes
    ----------
    gen, disc: shape of each block's output for one sample, without the batch dimension.
    latent_size: length of the latent vector.
    """

    gen: tuple[torch.Size, ...]
    disc: tuple[torch.Size, ...]
    latent_size: int


@functools.lru_cache(maxsize=32)
def net_shapes(spec: NetSpec) -> NetShapes:
    """Output shapes of all blocks, from a pass over meta tensors: nothing is computed."""
    batch = 2
    with torch.device("meta"), torch.no_grad():
        blocks = build_blocks(spec)
        labels = torch.zeros(batch, dtype=torch.long)

        def shapes(net: list[nn.Module], first: Tensor) -> tuple[torch.Size, ...]:
            outputs = [net[0](first, labels)]
            for block in net[1:]:
                outputs.append(block(outputs[-1]))
            return tuple(output.shape[1:] for output in outputs)

        gen = shapes(blocks.generator, torch.zeros(batch, blocks.latent_size))
        image = torch.zeros(batch, spec.channels, spec.image_size, spec.image_size)
        if gen[-1] != image.shape[1:]:
            raise UserError(
                f'net="{spec.net}" generates images of shape {tuple(gen[-1])}, '
                f"but the run asks for {tuple(image.shape[1:])}"
            )
        return NetShapes(gen, shapes(blocks.discriminator, image), blocks.latent_size)


def whole_net(shapes: NetShapes) -> dict[str, range]:
    """Indices of all blocks."""
    return {GEN: range(len(shapes.gen)), DISC: range(len(shapes.disc))}


def state_names(spec: NetSpec, blocks: BlockIndices) -> list[str]:
    """Names of the parameters and buffers of these blocks, sorted."""
    with torch.device("meta"):
        return sorted(select_blocks(_whole(spec).state_dict(), blocks))


def select_blocks(state: State, blocks: BlockIndices) -> State:
    """The part of a state that belongs to these blocks, sorted by name."""
    wanted = {(net, str(index)) for net, indices in blocks.items() for index in indices}
    return {name: state[name] for name in sorted(state) if tuple(name.split(".")[:2]) in wanted}


def to_arrays(state: State) -> list[np.ndarray]:
    """The values of a state in the order of its names: how Flower's messages carry it."""
    return [state[name].detach().cpu().numpy() for name in sorted(state)]


def from_arrays(names: Iterable[str], arrays: Sequence[np.ndarray]) -> State:
    """A state with these names, from what `to_arrays` gave; raises ValueError if counts differ."""
    pairs = zip(sorted(names), arrays, strict=True)
    # A copy: arrays out of a message are read-only, and training writes in place.
    return {name: torch.from_numpy(np.array(array)) for name, array in pairs}


class _GeneratorInput(nn.Module):
    """Latent vector and label embedding to the first, smallest feature map."""

    def __init__(self, latent_size: int, num_classes: int, features: int, size: int) -> None:
        super().__init__()
        self.shape = (features, size, size)
        self.embedding = nn.Embedding(num_classes, num_classes)
        outputs = features * size * size
        self.layers = nn.Sequential(
            nn.Linear(latent_size + num_classes, outputs, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        )

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        joined = torch.cat([latent, self.embedding(labels)], dim=1)
        out: Tensor = self.layers(joined)
        return out.view(-1, *self.shape)


class _DiscriminatorInput(nn.Module):
    """Image, and label embedding as one more channel of it, to the first feature map."""

    def __init__(self, channels: int, num_classes: int, image_size: int, features: int) -> None:
        super().__init__()
        self.plane = (1, image_size, image_size)
        self.embedding = nn.Embedding(num_classes, image_size * image_size)
        self.layers = _down(channels + 1, features, kernel=4, stride=2)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        plane = self.embedding(labels).view(-1, *self.plane)
        out: Tensor = self.layers(torch.cat([images, plane], dim=1))
        return out


def _up(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _down(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


@register_net("cgan")
def cgan(spec: NetSpec) -> Blocks:
    """The paper's conditional GAN, generalised over image size, channels, classes and width.

    Layers before a batch norm have no bias: the norm would take it out again.

    Raises
    ------
    UserError: the image size is not divisible by 4, or below 16.
    """
    if spec.image_size < 16 or spec.image_size % 4:
        raise UserError(
            f"image-size={spec.image_size}: the net cgan needs a multiple of 4, at least 16"
        )
    w, size, latent_size = spec.width, spec.image_size // 4, 100
    generator = [
        _GeneratorInput(latent_size, spec.num_classes, 4 * w, size),
        _up(4 * w, 2 * w, kernel=4, stride=2),
        _up(2 * w, 2 * w, kernel=3, stride=1),
        _up(2 * w, w, kernel=4, stride=2),
        nn.Sequential(nn.ConvTranspose2d(w, spec.channels, 3, 1, padding=1), nn.Tanh()),
    ]
    last = (size // 2) ** 2
    discriminator = [
        _DiscriminatorInput(spec.channels, spec.num_classes, spec.image_size, w),
        _down(w, 2 * w, kernel=4, stride=2),
        _down(2 * w, 2 * w, kernel=3, stride=1),
        _down(2 * w, 4 * w, kernel=4, stride=2),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * w * last, 1)),
    ]
    return Blocks(generator, discriminator, latent_size)
