"""A procedure: the training iteration of a method whose clients compute it with the server.

An iteration is a fixed sequence of *exchanges*: a client sends named tensors, the server answers
with others. A procedure is two objects, plain arithmetic without threads, clocks or transport:
the *client's half* holds what a device holds, the *server's half* what the server holds, and
computes each exchange for several clients at once. `split` is HuSCF's procedure.
"""

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from huscf_flwr.tensors import Shapes, Tensors, check_tensors
from huscf_flwr.wire.codings import EXACT, Coding

Steps = Generator[Tensors, Tensors, Any]
"""A client's iteration: yields what it sends, is sent the answer, returns what came of it."""


@dataclass(frozen=True)
class ExchangeSpec:
    """One exchange of one client: its name, what the client sends, and what it gets back."""

    name: str
    sent: Shapes
    returned: Shapes


class ClientHalf(Protocol):
    """What a client computes."""

    @property
    def exchanges(self) -> Sequence[ExchangeSpec]:
        """Those of an iteration, in order; none for a method that trains on its own."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of all tensors that are exchanged."""
        ...

    @property
    def device(self) -> torch.device:
        """Where answers have to be."""
        ...

    def iteration(self, batch: Any) -> Steps:
        """Compute one iteration: yield the tensors of each exchange, be sent its answer.

        The tensors of an answer are the client's own, and leaves of its autograd graph.
        """
        ...

    def abandon(self) -> None:
        """Forget what an iteration that was not finished has left behind: gradients, mostly."""
        ...


class StackedHalf(Protocol):
    """Halves of several clients that exchange the same, computed as one.

    Nets and optimisers remain theirs. Tensors are those of all, `(clients, batch, *features)`, and
    no value of one client depends on one of another.
    """

    @property
    def device(self) -> torch.device:
        """Where answers have to be."""
        ...

    def iteration(self, batches: Sequence[Any]) -> Steps:
        """As `ClientHalf.iteration`, with a batch of each; returns what theirs would, in turn."""
        ...

    def leave(self, row: int) -> None:
        """A client is out for good: from here on its row may hold anything, and is not stepped."""
        ...


class Stacker(Protocol):
    """Stacks clients' halves."""

    def kind(self, half: ClientHalf) -> Hashable:
        """Halves of equal kinds can be stacked; None: this one cannot."""
        ...

    def stack(self, halves: Sequence[ClientHalf]) -> StackedHalf:
        """Halves of one kind; what they were stacked with before is not used any more."""
        ...


class ServerIteration(Protocol):
    """The server's half of one iteration."""

    @property
    def results(self) -> Mapping[int, Tensor]:
        """By client, what the strategy gets to know of it if this was its last in the round."""
        ...

    @property
    def refused(self) -> Mapping[int, str]:
        """Why clients get no answer, by number: they are out of the round."""
        ...

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> Mapping[int, Tensors]:
        """Compute an exchange, from 0, for all clients that are still in the iteration.

        `requests` are in the clients' order; their tensors may be leaves of the server's autograd
        graph, and are not to be changed in place. Who was in the last exchange and is not in this
        one has left for good. Answers are to all that are not `refused`; they have no graph, and
        nothing that `step` changes.
        """
        ...

    def step(self, exchange: int) -> None:
        """Do what the clients need not wait for, once they have the answers of this exchange."""
        ...


class ServerHalf(Protocol):
    """What the server computes, and what it keeps from one iteration to the next.

    A round may have several, each with clients of its own, and one iteration of each at a time.
    All its clients have as many exchanges. `place` is what it has to know of a client to serve
    it: for HuSCF its cut.
    """

    @property
    def dtype(self) -> torch.dtype:
        """Of all tensors that are exchanged."""
        ...

    def exchanges(self, place: Any) -> Sequence[ExchangeSpec]:
        """The exchanges of a client."""
        ...

    def iteration(self, places: Mapping[int, Any]) -> ServerIteration:
        """Begin an iteration of these clients, batched in this order."""
        ...


def exchanged_bytes(
    specs: Sequence[ExchangeSpec], dtype: torch.dtype, coding: Coding = EXACT
) -> list[int]:
    """Bytes of the tensors that a client sends and gets back, in turns: two for each exchange."""
    return [
        sum(coding.size(shape, dtype) for shape in one_way.values())
        for spec in specs
        for one_way in (spec.sent, spec.returned)
    ]


@dataclass
class ClientTraining:
    """A client's training in a round: iterations that are driven one by one.

    Attributes
    ----------
    half: the client's half of the procedure.
    batches: gives the batch of iteration i.
    iterations: how many there are.
    results: what each iteration returned that was finished.
    """

    half: ClientHalf
    batches: Callable[[int], Any]
    iterations: int

    def __post_init__(self) -> None:
        self.results: list[Any] = []

    def steps(self, index: int) -> Steps:
        """Iteration `index`; between iterations, nothing is held but what the half holds."""
        self.results.append((yield from self.half.iteration(self.batches(index))))

    def alone(self) -> None:
        """All iterations, of a half that exchanges nothing."""
        for index in range(self.iterations):
            if advance(self.steps(index)) is not None:
                raise TypeError(f"{type(self.half).__name__} exchanges: it cannot train alone")


def check_answer(answer: Tensors, spec: ExchangeSpec, dtype: torch.dtype) -> None:
    """Raise `TensorError` unless the server may answer this exchange so.

    Its values come from others' and its own: finite is all that can be asked of them.
    """
    check_tensors(answer, spec.returned, dtype, torch.finfo(dtype).max)


def advance(steps: Steps, answer: Tensors | None = None) -> Tensors | None:
    """Begin an iteration, or go on with an answer.

    Returns
    -------
    What the client sends next, without autograd's graph; None when the iteration is over.
    """
    try:
        request = next(steps) if answer is None else steps.send(answer)
    except StopIteration:
        return None
    return {name: tensor.detach() for name, tensor in request.items()}
