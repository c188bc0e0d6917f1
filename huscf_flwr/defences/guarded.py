"""A server's half whose clients' requests a guard looks at first."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from huscf_flwr.defences.guard import Guard, UsualFrames
from huscf_flwr.procedure import ExchangeSpec, ServerHalf, ServerIteration
from huscf_flwr.tensors import Checked, Tensors

Seen = Mapping[int, tuple[Tensors, Tensors]]
"""By exchange of an iteration: what a client has sent, and what it was answered."""


class SpotChecker(Protocol):
    """Knows about what a client should send."""

    def expected(self, exchange: int, seen: Seen, rows: Tensor) -> Mapping[str, Tensor]:
        """Its gradients of these samples in an exchange, by name; nothing if it sends none."""
        ...

    def belief(self, exchange: int, sent: Tensors) -> float | None:
        """How much more probably real than generated ones its real images look, in [-1, 1].

        By what it sends and by the nets that the round began with; None if that does not tell.
        """
        ...


@dataclass(frozen=True)
class Known:
    """What the server knows of what a client sends in a round.

    Attributes
    ----------
    usual: how large it usually is.
    checker: who knows more of it, if anybody does.
    group: its cluster, if it and others have trained their nets on images of the same kind.
    """

    usual: UsualFrames
    checker: SpotChecker | None = None
    group: int | None = None


class _UsualOf(Mapping[int, UsualFrames]):
    """What is usual of each client, of all that is known: halves share that."""

    def __init__(self, known: Mapping[int, Known]) -> None:
        self._known = known

    def __getitem__(self, client: int) -> UsualFrames:
        return self._known[client].usual

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class Guarded:
    """Such a half, a `ServerHalf` itself."""

    def __init__(
        self,
        half: ServerHalf,
        guard: Guard,
        known: Mapping[int, Known],
        peers: Collection[int],
    ) -> None:
        """`known` is of all clients of the round, `peers` are those that this half serves."""
        self.half = half
        self.guard = guard
        self.known = known
        self.usual = _UsualOf(known)
        self.peers = peers
        checkers = {client: known[client].checker for client in peers}
        self.checkers = {client: own for client, own in checkers.items() if own is not None}
        self.comparable = [client for client, of in known.items() if of.checker is not None]
        """Whose gradients can be looked at, of all clients of the round."""
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for client in self.checkers:
            if (group := known[client].group) is not None:
                alike[group].append(client)
        self.groups = {client: group for group in alike.values() for client in group}
        """Of each client that is compared with others: who they are, and itself."""

    @property
    def dtype(self) -> torch.dtype:
        return self.half.dtype

    def exchanges(self, place: object) -> Sequence[ExchangeSpec]:
        return self.half.exchanges(place)

    def iteration(self, places: Mapping[int, object]) -> "GuardedIteration":
        """Begin an iteration of these clients."""
        names = [spec.name for spec in self.half.exchanges(next(iter(places.values())))]
        return GuardedIteration(self, self.half.iteration(places), list(places), names)


class GuardedIteration:
    """One iteration of such a half."""

    def __init__(
        self,
        half: Guarded,
        iteration: ServerIteration,
        clients: Collection[int],
        names: Sequence[str],
    ) -> None:
        """`names` are those of the exchanges."""
        self._half = half
        self._iteration = iteration
        self._names = names
        self._guard = half.guard
        self._seen: dict[int, dict[int, tuple[Tensors, Tensors]]] = {
            client: {} for client in half.guard.spot_checked(clients) if client in half.checkers
        }
        self._looked_at = self._guard.beliefs.due([c for c in clients if c in half.groups])

    @property
    def results(self) -> Mapping[int, Tensor]:
        return self._iteration.results

    @property
    def refused(self) -> Mapping[int, str]:
        return self._guard.refused

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> Mapping[int, Tensors]:
        """Compute an exchange for all whom the guard lets through."""
        name, half = self._names[exchange], self._half
        sent = {k: t if isinstance(t, Checked) else Checked(t) for k, t in requests.items()}
        with self._guard.turn:
            found = self._guard.bounded(exchange, sent, half.usual, half.peers, name)
            for client in found.keys() & self._seen.keys():
                rows = self._guard.rows(len(next(iter(found[client].values()), ())))
                due = half.checkers[client].expected(exchange, self._seen[client], rows)
                if due:
                    self._guard.spot_check(client, found[client], due, rows, name, half.comparable)
            for client in found.keys() & self._looked_at:
                belief = half.checkers[client].belief(exchange, found[client])
                if belief is not None:
                    self._guard.believe(client, belief, half.groups[client])
        good = {client: sent for client, sent in found.items() if client not in self.refused}
        if not good:
            return {}
        answers = self._iteration.answer(exchange, good)
        for client in answers.keys() & self._seen.keys():
            self._seen[client][exchange] = good[client], answers[client]
        return answers

    def step(self, exchange: int) -> None:
        self._iteration.step(exchange)
