"""The optimisers of a GAN, or of the part of one that is here, and their state by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from huscf_flwr.nets import PartialGAN, State


class Optimisers:
    """Adam with the paper's betas, one for each of the nets, as far as they have blocks."""

    def __init__(self, nets: PartialGAN, learning_rate: float) -> None:
        self._modules = dict(nets.named_children())
        self._adams = {
            net: torch.optim.Adam(
                module.parameters(), learning_rate, betas=(0.5, 0.999), fused=True
            )
            for net, module in self._modules.items()
            if list(module.parameters())
        }

    def step(self, net: str) -> None:
        """Apply and clear the gradients of a net, by its name: `gen` or `disc`."""
        self._adams[net].step()
        self._adams[net].zero_grad()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for adam in self._adams.values():
            adam.zero_grad()

    def state(self) -> State:
        """A copy of step counts and moments on the CPU, named `<net>.<parameter>/<what>`."""
        return {
            f"{net}.{name}/{what}": value.detach().cpu().clone()
            for net, module in self._modules.items()
            for name, parameter in module.named_parameters()
            for what, value in self._adams[net].state.get(parameter, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; parameters it does not name start afresh.

        Raises
        ------
        ValueError: something is missing of a parameter that it names, or of another shape; nothing
            is taken over then.
        """
        entries: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, what = key.partition("/")
            entries.setdefault(name, {})[what] = value.clone()
        own = {
            f"{net}.{name}": (net, parameter)
            for net, module in self._modules.items()
            for name, parameter in module.named_parameters()
        }
        for name in own.keys() & entries.keys():
            shape = own[name][1].shape
            due = {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
            if {what: value.shape for what, value in entries[name].items()} != due:
                raise ValueError(f"the optimiser's state of {name} does not fit")
        for name in own.keys() & entries.keys():
            net, parameter = own[name]
            self._adams[net].state[parameter] = {
                what: value.to(parameter.device) for what, value in entries[name].items()
            }
