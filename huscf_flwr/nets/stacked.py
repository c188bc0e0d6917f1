"""Nets of several clients, computed as one: for GPUs, where it is launching operations that costs.

PyTorch's `vmap` makes of as many convolutions one with groups, of as many matrix products one that
is batched, and of batch norms one with more channels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from huscf_flwr.nets.optim import Optimisers, step_together
from huscf_flwr.nets.state import PartialGAN


class StackedNets:
    """The same blocks of several clients, each with parameters and buffers of its own.

    From here on, theirs are views of common tensors: where one changes, so does the other.
    """

    def __init__(self, nets: Sequence[PartialGAN]) -> None:
        self._stacked: dict[Tensor, Tensor] = {}
        """By what is the first client's."""
        self._owners: dict[str, list[tuple[Tensor, list[Tensor]]]] = {}
        """By net: parameters of all, and the same of each."""
        for net, _ in nets[0].named_children():
            of_each = [dict(each.get_submodule(net).named_parameters()).values() for each in nets]
            self._owners[net] = [
                (self._stack(own), list(own)) for own in zip(*of_each, strict=True)
            ]
        for own in zip(*(each.buffers() for each in nets), strict=True):
            self._stack(own)

    def _stack(self, own: Sequence[Tensor]) -> Tensor:
        # In the order in memory that each has, for so have its moments.
        like = own[0].detach().expand(len(own), *own[0].shape)
        stacked = torch.empty_like(like, memory_format=torch.preserve_format)
        torch.stack([tensor.detach() for tensor in own], out=stacked)
        for tensor, row in zip(own, stacked.unbind(), strict=True):
            tensor.data = row
        self._stacked[own[0]] = stacked.requires_grad_(own[0].requires_grad)
        return stacked

    def blocks(self, first: Iterable[nn.Module]) -> list[nn.Module]:
        """Blocks of all clients, by those of the first.

        What such a block takes and gives has one dimension more, clients, which is the first one.
        """
        return [_StackedBlock(block, self._stacked) for block in first]

    def step(self, net: str, optimisers: Mapping[int, Optimisers]) -> None:
        """Apply the gradients of a net for these clients, by row, and clear those of all."""
        for stacked, own in self._owners[net]:
            if stacked.grad is None:
                continue
            gradients = stacked.grad.unbind()
            for row in optimisers:
                own[row].grad = gradients[row]
            stacked.grad = None
        step_together(list(optimisers.values()), net)


class _StackedBlock(nn.Module):
    """A block that computes with others' parameters and buffers, for all of them at once."""

    def __init__(self, block: nn.Module, stacked: Mapping[Tensor, Tensor]) -> None:
        super().__init__()
        parameters = block.named_parameters(remove_duplicate=False)
        buffers = block.named_buffers(remove_duplicate=False)
        self._tensors = {name: stacked[own] for name, own in [*parameters, *buffers]}

        def run(own: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            with _MergedNorms():
                out: Tensor = functional_call(block, own, inputs)
                return out

        self._run = vmap(run)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._run(self._tensors, *inputs)


class _MergedNorms(TorchFunctionMode):
    """Has batch norms computed by `_MergedNorm`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        return _MergedNorm.apply(*args, **kwargs) if func is batch_norm else func(*args, **kwargs)


class _MergedNorm(torch.autograd.Function):
    """Batch norms of all clients as one, each with channels of its own.

    That is what `vmap` does, too, but it scales and shifts apart from it: twice as many launches.
    """

    @staticmethod
    def forward(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `batch_norm`, whose arguments these are."""
        raise NotImplementedError("for several clients only")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None: ...

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], input: Tensor, *rest: Any
    ) -> tuple[Tensor, int]:
        """Channels (B, C, ...) of all as (B, clients * C, ...), and what (C,) holds of them."""
        assert in_dims[0] is not None
        clients = input.movedim(in_dims[0], 1)
        merged = [
            of if dim is None else of.movedim(dim, 0).flatten()
            for of, dim in zip(rest, in_dims[1:], strict=True)
        ]
        out = batch_norm(clients.flatten(1, 2), *merged)
        return out.unflatten(1, clients.shape[1:3]), 1
