"""One training of what several runners compute, each with clients of its own.

Every so often all runners *meet*: they add up what each has done since the last time, and go on
alike. Who has no client to serve comes to each meeting with nothing, so that the others need not
wait; who is at the end of its round does so until all are. So every runner is at as many
meetings, however many iterations it has, whoever drops out, and whenever the round is closed.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from huscf_flwr.nets import DISC, GEN, State
from huscf_flwr.procedure import ExchangeSpec, ServerIteration
from huscf_flwr.remote.peers import Peers
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.segments import STEPS, Segments
from huscf_flwr.tensors import Tensors


class Joint(ABC):
    """What the runners of a round have in common. Called by the thread that computes."""

    def __init__(self, halves: Mapping[int, Segments], peers: Peers) -> None:
        """`halves` are those that several runners train, by the same keys at all."""
        self.halves = dict(sorted(halves.items()))
        self._peers = peers

    @abstractmethod
    def begin(self, key: int) -> None:
        """An iteration of a half begins here, which maybe no other runner has."""

    @abstractmethod
    def step(self, net: str, own: Segments) -> None:
        """This iteration has brought gradients to `own`, of which a step is due."""

    @abstractmethod
    def idle(self) -> bool:
        """There is no client to serve: come to a meeting; whether anything was done anywhere."""

    @abstractmethod
    def close(self) -> None:
        """The round is over here: come to meetings until it is over for all."""

    def _count(self, closing: bool, counts: Mapping[int, int]) -> tuple[bool, dict[int, int]]:
        """Whether all are closing, and the sums of these counts, of each half."""
        own = [int(closing), *(counts.get(key, 0) for key in self.halves)]
        (sums,) = self._peers.sums([torch.tensor(own)])
        closed, *found = sums.tolist()
        return closed == self._peers.size, dict(zip(self.halves, found, strict=True))

    def _average(self, own: State, share: float) -> State:
        """Means over all runners, this one counts for `share`; of integers the largest."""
        found = dict(own)
        values = [name for name, value in own.items() if value.is_floating_point()]
        counts = [name for name in own if name not in values]
        if values:
            means = self._peers.sums([share * own[name].double() for name in values])
            found |= zip(values, means, strict=True)
        if counts:
            found |= zip(counts, self._peers.largest([own[n] for n in counts]), strict=True)
        return {name: value.to(own[name].dtype) for name, value in found.items()}


class Lockstep(Joint):
    """A meeting in every iteration: gradients are added up, and all take the same step.

    As if one runner served all clients, in batches of their own: so parameters and moments are
    alike everywhere at any time. What batch norm has seen is averaged when the round closes.
    """

    def __init__(self, halves: Mapping[int, Segments], peers: Peers) -> None:
        super().__init__(halves, peers)
        self._due: list[tuple[str, int]] = []
        self._iterations = dict.fromkeys(halves, 0)

    def begin(self, key: int) -> None:
        self._finish()  # the one before, if its clients have left it
        self._meet(key)

    def step(self, net: str, own: Segments) -> None:
        if all(own is not half for half in self.halves.values()):
            own.optimisers.step(net)
        while self._due and self._due[0][0] == net:
            self._step(*self._due.pop(0))

    def idle(self) -> bool:
        self._finish()
        self._meet()
        due = bool(self._due)
        self._finish()
        return due

    def close(self) -> None:
        self._finish()
        while not self._meet(closing=True):
            self._finish()
        _, total = self._count(True, self._iterations)
        for key, half in self.halves.items():
            if total[key]:
                buffers = dict(half.nets.named_buffers())
                found = self._average(buffers, self._iterations[key] / total[key])
                for name, buffer in buffers.items():
                    buffer.copy_(found[name])

    def _meet(self, key: int | None = None, closing: bool = False) -> bool:
        """Say which half begins an iteration here, and hear which do anywhere."""
        if key in self._iterations:
            self._iterations[key] += 1
        closed, iterating = self._count(closing, {} if key is None else {key: 1})
        here = [key for key, count in iterating.items() if count]
        self._due = [(net, key) for net in (DISC, GEN) for key in here]
        return closed

    def _finish(self) -> None:
        while self._due:
            self._step(*self._due.pop(0))

    def _step(self, net: str, key: int) -> None:
        half = self.halves[key]
        parameters = list(half.nets.get_submodule(net).parameters())
        here = [parameter.grad is not None for parameter in parameters]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        anywhere = torch.tensor(here).to(gradients[0])
        *found, anywhere = self._peers.sums([*gradients, anywhere])
        for parameter, gradient, some in zip(parameters, found, anywhere.tolist(), strict=True):
            parameter.grad = gradient if some else None
        half.optimisers.step(net)


class EveryFew(Joint):
    """A meeting every few iterations: parameters, buffers and moments are averaged.

    Each runner counts by its iterations since the last meeting.
    """

    def __init__(self, halves: Mapping[int, Segments], peers: Peers, every: int) -> None:
        """`every` is after how many iterations of a runner."""
        super().__init__(halves, peers)
        self._every = every
        self._since = 0
        self._iterations: dict[int, int] = {}

    def begin(self, key: int) -> None:
        if self._since == self._every:
            self._meet()
        self._since += 1
        self._iterations[key] = self._iterations.get(key, 0) + 1

    def step(self, net: str, own: Segments) -> None:
        own.optimisers.step(net)

    def idle(self) -> bool:
        return self._meet()[1]

    def close(self) -> None:
        while not self._meet(closing=True)[0]:
            pass

    def _meet(self, closing: bool = False) -> tuple[bool, bool]:
        closed, total = self._count(closing, self._iterations)
        for key, iterations in total.items():
            if iterations:
                share = self._iterations.get(key, 0) / iterations
                self._take(self.halves[key], share)
        self._since, self._iterations = 0, {}
        return closed, any(total.values())

    def _take(self, half: Segments, share: float) -> None:
        half.load(self._average(half.state(), share))
        half.optimisers.load(self._average(half.optimisers.state(of_all=True), share))


class JoinedHalf:
    """A server's half in iterations that are joint with other runners'; a `ServerHalf` itself."""

    def __init__(self, half: Segments, joint: Joint, key: int) -> None:
        """`key` is the half's."""
        self.half = half
        self.joint = joint
        self._key = key

    @property
    def dtype(self) -> torch.dtype:
        return self.half.dtype

    def exchanges(self, place: Cut) -> Sequence[ExchangeSpec]:
        return self.half.exchanges(place)

    def iteration(self, places: Mapping[int, Cut]) -> "JoinedIteration":
        """Begin an iteration of these clients, when the other runners do."""
        self.joint.begin(self._key)
        return JoinedIteration(self, self.half.iteration(places))


class JoinedIteration:
    """One iteration of such a half."""

    def __init__(self, half: JoinedHalf, iteration: ServerIteration) -> None:
        self._half = half
        self._iteration = iteration

    @property
    def results(self) -> Mapping[int, Tensor]:
        return self._iteration.results

    @property
    def refused(self) -> Mapping[int, str]:
        return self._iteration.refused

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> Mapping[int, Tensors]:
        return self._iteration.answer(exchange, requests)

    def step(self, exchange: int) -> None:
        """What gradients this exchange brought count with those that it brought elsewhere."""
        net = STEPS.get(Exchange(exchange))
        if net is not None:
            self._half.joint.step(net, self._half.half)
