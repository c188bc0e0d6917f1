"""Inversion: what a head was given, found by optimisation against what it sent.

The attacker knows the head's parameters, as a server does that hands them out, and its structure.
Labels are unknown: shares of all classes take their place and are found with the rest.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from huscf_flwr.nets import run_blocks


@dataclass(frozen=True)
class Release:
    """What a head gave of a batch.

    Attributes
    ----------
    blocks: the head, in training mode, with the parameters that it had.
    sent: what it gave, float (B, *features).
    """

    blocks: Sequence[nn.Module]
    sent: Tensor


@dataclass(frozen=True)
class Inverted:
    """What a head was given, as far as it was found.

    Attributes
    ----------
    inputs: images or latent vectors, float (B, *shape).
    labels: shares of the classes, float (B, classes); None if the head embeds no labels.
    error: mean square of what is left between what was sent and what these give, by its
        variance; the mean over releases.
    """

    inputs: Tensor
    labels: Tensor | None
    error: float


def invert(
    releases: Sequence[Release],
    shape: Sequence[int],
    num_classes: int,
    *,
    steps: int,
    seed: int,
) -> Inverted:
    """Find the inputs and labels of a batch with which these blocks give what was sent.

    All of a batch at once, for normed layers tie its samples together. By L-BFGS; where the
    blocks give more numbers than they get, and the optimiser arrives, the inputs are exact.
    Several releases of the same batch, with other parameters, have more numbers together.

    Parameters
    ----------
    releases: what was sent of it, once or more often.
    shape: of an input.
    num_classes: that labels are of.
    steps: iterations at most.
    seed: of where it begins.
    """
    random = torch.Generator().manual_seed(seed)
    size, dtype = len(releases[0].sent), releases[0].sent.dtype
    inputs = 0.1 * torch.randn((size, *shape), generator=random, dtype=dtype)
    logits = torch.zeros(size, num_classes, dtype=dtype)
    placeholders = torch.zeros(size, dtype=torch.long)
    scales = [one.sent.var().clamp(min=torch.finfo(dtype).tiny) for one in releases]
    optimiser = torch.optim.LBFGS(
        [inputs.requires_grad_(), logits.requires_grad_()],
        max_iter=steps,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    with ExitStack() as stack:
        embeddings = [
            stack.enter_context(_labels_as_shares(one.blocks, logits)) for one in releases
        ]

        def loss() -> Tensor:
            errors = [
                (run_blocks(one.blocks, inputs, placeholders) - one.sent).square().mean() / scale
                for one, scale in zip(releases, scales, strict=True)
            ]
            return torch.stack(errors).mean()

        def step() -> float:
            optimiser.zero_grad()
            value = loss()
            gradients = torch.autograd.grad(value, [inputs, logits], allow_unused=True)
            for found, gradient in zip((inputs, logits), gradients, strict=True):
                found.grad = None if gradient is None else gradient.contiguous()
            return value.item()

        optimiser.step(step)
        with torch.no_grad():
            error = float(loss())
    shares = logits.detach().softmax(dim=1) if any(embeddings) else None
    return Inverted(inputs.detach(), shares, error)


@contextmanager
def _labels_as_shares(blocks: Sequence[nn.Module], logits: Tensor) -> Iterator[int]:
    """Let embeddings of labels give the mixture that `logits` say; how many there are."""
    found = [m for m in blocks[0].modules() if isinstance(m, nn.Embedding)]

    def mixed(module: nn.Module, _: object, __: object) -> Tensor:
        weight = module.weight
        assert isinstance(weight, Tensor)
        return logits.softmax(dim=1) @ weight

    with ExitStack() as stack:
        for embedding in found:
            stack.callback(embedding.register_forward_hook(mixed).remove)
        yield len(found)
