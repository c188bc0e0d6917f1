"""Conditional GANs as two ordered lists of blocks, and the registry that names them.

A *net* here is what can be cut: a generator and a discriminator, each a list of modules. The first
block of either list is called with `(input, labels)`, every other block with the output of the one
before. Nothing but a net's own module knows how many blocks there are or what is inside them.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from huscf_flwr.errors import UserError
from huscf_flwr.nets.losses import BCE, LOSSES, GANLoss
from huscf_flwr.system.own_modules import import_own

GEN = "gen"
DISC = "disc"

FLOAT32, BFLOAT16 = PRECISIONS = "float32", "bfloat16"
"""What nets compute in; parameters, and what blocks of several places exchange, are as before."""


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
    precision: one of `PRECISIONS`.
    loss: name in `LOSSES`, of what both nets are trained by.
    """

    net: str = "cgan"
    image_size: int
    channels: int
    num_classes: int
    width: int
    precision: str = FLOAT32
    loss: str = BCE

    def __post_init__(self) -> None:
        """Raises `UserError` unless the net is text, precision and loss are some that there are,
        and all else are whole numbers from 1 on."""
        if type(self.net) is not str:
            raise UserError(f"net={self.net!r}: must be text")
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("loss", self.loss, tuple(LOSSES)),
        ):
            if value not in known:
                raise UserError(f"{name}={value!r}: must be {' or '.join(known)}")
        for name in ("image_size", "channels", "num_classes", "width"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                key = name.replace("_", "-")
                raise UserError(f"{key}={value!r}: must be a whole number, at least 1")

    @property
    def gan_loss(self) -> GANLoss:
        """What both nets are trained by."""
        return LOSSES[self.loss]


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


def run_blocks(blocks: Iterable[nn.Module], *inputs: Tensor) -> Tensor:
    """One after the other; `inputs` are those of the first one, with labels if it has them."""
    first, *rest = blocks
    out: Tensor = first(*inputs)
    for block in rest:
        out = block(out)
    return out


def each_output(blocks: Iterable[nn.Module], *inputs: Tensor) -> list[Tensor]:
    """As `run_blocks`, what every block gives."""
    first, *rest = blocks
    outputs: list[Tensor] = [first(*inputs)]
    for block in rest:
        outputs.append(block(outputs[-1]))
    return outputs


def in_bfloat16(block: nn.Module) -> None:
    """Have a block compute in bfloat16, where PyTorch's autocast finds that this loses little.

    What comes out has the dtype of what went in: so results do not depend on where nets are cut.
    """
    block.__class__ = _computing_in_bfloat16(type(block))  # type: ignore[arg-type]


@functools.cache
def _computing_in_bfloat16(kind: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            out: Tensor = kind.forward(self, *inputs)
        return out.to(inputs[0].dtype)

    return type(kind.__name__, (kind,), {"forward": forward})


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
    return builder_of(spec)(spec)


def builder_of(spec: NetSpec) -> Builder:
    """What builds the nets of `spec`: whatever is registered under that name now.

    Raises
    ------
    UserError: no such net.
    """
    module, _, name = spec.net.rpartition(":")
    if module:
        try:
            import_own(module)
        except (ImportError, SyntaxError) as error:
            raise UserError(f'net="{spec.net}": cannot import {module}: {error}') from error
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        raise UserError(
            f'net="{spec.net}" is not registered: known are {known}; "module:name" imports the '
            "module that registers it"
        )
    return _REGISTRY[name]


def unfilled_blocks(spec: NetSpec) -> Blocks:
    """Both nets of `spec` with whatever was in the memory for values.

    Raises
    ------
    UserError: as `build_blocks`.
    """
    with _NoValues():
        return build_blocks(spec)


class _NoValues(TorchFunctionMode):
    """Leaves out initialisation.

    The meta device would do that, too, and load PyTorch's compiler, which takes a device's
    process, made anew for every message, as long as all the rest of PyTorch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


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
    """Output shapes of all blocks, from a pass of two images through them."""
    batch = 2
    blocks = unfilled_blocks(spec)
    nn.ModuleList([*blocks.generator, *blocks.discriminator]).eval()
    with torch.no_grad():
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
