"""What a GPU would be asked to do for a client's training iteration: how many operations, and how
often it would be waited for, with one client computed after the other, and stacked.

    python -m simulations.launches

Counted here, on the processor, for a default run's net: operations that compute or copy, but no
views, and not the copies of batches to a GPU. A fused step of an optimiser counts once for all
tensors that a launch takes (36), a backward pass through a convolution once for every gradient.
How long any of them takes, this does not say.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import NetSpec, initial_state, net_shapes
from huscf_flwr.procedure import ClientTraining, Stacker
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import all_segments
from huscf_flwr.split.stacked import HeadsAndTailsStacker

T = TypeVar("T")

_AT_ONCE = {"_fused_adam_": 36, "_foreach_add_": 110}  # tensors of a launch, in PyTorch's source
_NO_KERNEL = ("empty", "new_empty", "_unsafe_view", "detach")
_WAITS = (Tensor.item, Tensor.tolist)
_BATCH = 64


class Launches(TorchDispatchMode):
    """Counts operations of its thread while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _AT_ONCE:
            self.count += math.ceil(len(args[0]) / _AT_ONCE[name])
        elif name == "convolution_backward":
            self.count += sum(args[-1])
        elif not func.is_view and not name.startswith(_NO_KERNEL):
            self.count += 1
        return func(*args, **(kwargs or {}))


class Waits(TorchFunctionMode):
    """Counts how often values are fetched in its thread while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.count += func in _WAITS
        return func(*args, **(kwargs or {}))


class InThisThread(Executor):
    """Does at once what it is given."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Counts:
    """Of an iteration of one client, on average.

    Attributes
    ----------
    client, server: launches of the clients' halves, and of the server's.
    waits: how often values are fetched.
    """

    client: float
    server: float
    waits: float


def per_iteration(spec: NetSpec, cut: Cut, clients: int, stacker: Stacker | None) -> Counts:
    """What an iteration takes of each of so many clients with this cut."""
    shapes, state = net_shapes(spec), initial_state(spec, 0)
    options: dict[str, Any] = {"batch_size": _BATCH, "learning_rate": 2e-4}
    server = all_segments(spec, state, **options)
    halves = [HeadsAndTails(spec, shapes, cut, state, **options) for _ in range(clients)]
    labels = torch.arange(_BATCH) % spec.num_classes
    images = torch.rand(_BATCH, spec.channels, spec.image_size, spec.image_size)
    batch = Batch(images, labels, torch.randn(_BATCH, shapes.latent_size), labels, labels)

    def counted(iterations: int) -> tuple[int, int]:
        runner = InProcessRunner(None, stacker=stacker)
        plans = [SessionPlan(str(k), k, server, cut, iterations) for k in range(clients)]
        runner.open_round(1, plans)
        parts = {
            k: ClientTraining(half, lambda _: batch, iterations) for k, half in enumerate(halves)
        }
        with Launches() as launches, Waits() as waits:
            failed = runner.train(parts, InThisThread())
        for error in failed.values():
            raise error
        return launches.count, waits.count

    counted(1)  # makes moments
    few, many = counted(1), counted(3)
    both, waits = ((b - a) / 2 for a, b in zip(few, many, strict=True))
    iteration = server.iteration(dict.fromkeys(range(clients), cut))
    with Launches() as of_server:
        for exchange, due in enumerate(server.exchanges(cut)):
            request = {name: torch.empty(shape) for name, shape in due.sent.items()}
            iteration.answer(exchange, dict.fromkeys(range(clients), request))
            iteration.step(exchange)
    client = both - of_server.count
    return Counts(client / clients, of_server.count / clients, waits / clients)


def main() -> None:
    """See the module's text."""
    spec = RunConfig(num_classes=10, channels=1).net_spec
    print(f"{'a client iteration':46}{'launches':>10}{'server':>10}{'waits':>8}")
    for cut in (Cut(1, 1, 1, 1), Cut(2, 2, 2, 2)):
        for clients in (8, 16):
            for way, stacker in (
                ("one after the other", None),
                ("stacked", HeadsAndTailsStacker()),
            ):
                found = per_iteration(spec, cut, clients, stacker)
                label = f"cut {cut}, {clients} clients, {way}"
                print(
                    f"{label:46}{found.client:10.1f}{found.server:10.1f}{found.waits:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
