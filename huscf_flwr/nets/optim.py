"""The optimisers of a GAN, or of the part of one that is here, and their state by name."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

from huscf_flwr.nets import PartialGAN, State

_BETAS = (0.5, 0.999)  # the paper's
_EPSILON = 1e-8
_STEP, _MEAN, _SQUARE = "step", "exp_avg", "exp_avg_sq"  # of a parameter, as torch names them


class Optimisers:
    """Adam for each of the nets, as far as they have blocks.

    PyTorch's function, not its class: the first object of that loads the compiler, which takes a
    device's process, made anew for every message, longer than all else but PyTorch itself.
    """

    def __init__(self, nets: PartialGAN, learning_rate: float) -> None:
        self._parameters = {
            net: dict(module.named_parameters()) for net, module in nets.named_children()
        }
        self._rate = learning_rate
        self._moments: dict[Tensor, dict[str, Tensor]] = {}

    def step(self, net: str) -> None:
        """Apply and clear the gradients of a net, by its name: `gen` or `disc`."""
        due: list[Tensor] = []
        gradients: list[Tensor] = []
        for parameter in self._parameters[net].values():
            if parameter.grad is None:
                continue
            due.append(parameter)
            gradients.append(parameter.grad)
            if parameter not in self._moments:
                self._moments[parameter] = _none_yet(parameter)
        moments = [self._moments[parameter] for parameter in due]
        with torch.no_grad():
            adam(
                due,
                gradients,
                [of[_MEAN] for of in moments],
                [of[_SQUARE] for of in moments],
                [],
                [of[_STEP] for of in moments],
                fused=True,
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=self._rate,
                weight_decay=0.0,
                eps=_EPSILON,
                maximize=False,
            )
        for stepped in due:
            stepped.grad = None

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameters in self._parameters.values():
            for parameter in parameters.values():
                parameter.grad = None

    def state(self, *, of_all: bool = False) -> State:
        """A copy of step counts and moments on the CPU, named `<net>.<parameter>/<what>`.

        `of_all` parameters, also of those that have taken no step: theirs are zero.
        """
        return {
            f"{net}.{name}/{what}": value.detach().cpu().clone()
            for net, parameters in self._parameters.items()
            for name, parameter in parameters.items()
            for what, value in self._moments.get(
                parameter, _none_yet(parameter) if of_all else {}
            ).items()
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
            f"{net}.{name}": parameter
            for net, parameters in self._parameters.items()
            for name, parameter in parameters.items()
        }
        for name in own.keys() & entries.keys():
            shape = own[name].shape
            due = {_STEP: torch.Size(), _MEAN: shape, _SQUARE: shape}
            if {what: value.shape for what, value in entries[name].items()} != due:
                raise ValueError(f"the optimiser's state of {name} does not fit")
        for name in own.keys() & entries.keys():
            device = own[name].device
            self._moments[own[name]] = {
                what: value.to(device) for what, value in entries[name].items()
            }


def _none_yet(parameter: Tensor) -> dict[str, Tensor]:
    """The moments of a parameter that has taken no step."""
    return {
        _STEP: torch.zeros((), device=parameter.device),
        _MEAN: torch.zeros_like(parameter, memory_format=torch.preserve_format),
        _SQUARE: torch.zeros_like(parameter, memory_format=torch.preserve_format),
    }
