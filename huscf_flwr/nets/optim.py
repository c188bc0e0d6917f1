"""The optimisers of a GAN, or of the part of one that is here, and their state by name."""

from collections.abc import Mapping, Sequence

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
        self.rate = learning_rate
        self._moments: dict[Tensor, dict[str, Tensor]] = {}

    def step(self, net: str) -> None:
        """Apply and clear the gradients of a net, by its name: `gen` or `disc`."""
        step_together([self], net)

    def due(self, net: str) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """The parameters of a net that have gradients, and their moments."""
        found: list[tuple[Tensor, dict[str, Tensor]]] = []
        for parameter in self._parameters[net].values():
            if parameter.grad is None:
                continue
            parameter.grad = _like(parameter, parameter.grad)
            if parameter not in self._moments:
                self._moments[parameter] = _none_yet(parameter)
            found.append((parameter, self._moments[parameter]))
        return found

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameters in self._parameters.values():
            for parameter in parameters.values():
                parameter.grad = None

    def state(self, *, of_all: bool = False) -> State:
        """A copy of `live`."""
        return {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in self.live(of_all=of_all).items()
        }

    def live(self, *, of_all: bool = False) -> State:
        """Step counts and moments, on the CPU, named `<net>.<parameter>/<what>`.

        They may be those that go on changing. `of_all` parameters, also of those that have taken
        no step: theirs are zero.
        """
        return {
            f"{net}.{name}/{what}": value.detach().cpu()
            for net, parameters in self._parameters.items()
            for name, parameter in parameters.items()
            for what, value in self._moments.get(
                parameter, _none_yet(parameter) if of_all else {}
            ).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy what `state` gave; parameters it does not name start afresh.

        Raises
        ------
        ValueError: something is missing of a parameter that it names, or of another shape; nothing
            is taken over then.
        """
        entries: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, what = key.partition("/")
            entries.setdefault(name, {})[what] = value
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
            parameter = own[name]
            self._moments[parameter] = made = _none_yet(parameter)
            for what, value in entries[name].items():
                made[what].copy_(value)


def step_together(optimisers: Sequence[Optimisers], net: str) -> None:
    """As `Optimisers.step`, of one or several clients, as one operation.

    They have one learning rate.
    """
    due = [pair for each in optimisers for pair in each.due(net)]
    with torch.no_grad():
        adam(
            [parameter for parameter, _ in due],
            [parameter.grad for parameter, _ in due if parameter.grad is not None],
            [of[_MEAN] for _, of in due],
            [of[_SQUARE] for _, of in due],
            [],
            [of[_STEP] for _, of in due],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=optimisers[0].rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )
    for parameter, _ in due:
        parameter.grad = None


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """In the parameter's own order in memory: the fused step goes by that alone."""
    if value.device == parameter.device and value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _none_yet(parameter: Tensor) -> dict[str, Tensor]:
    """The moments of a parameter that has taken no step."""
    return {
        _STEP: torch.zeros((), device=parameter.device),
        _MEAN: torch.zeros_like(parameter, memory_format=torch.preserve_format),
        _SQUARE: torch.zeros_like(parameter, memory_format=torch.preserve_format),
    }
