"""The runner of clients of this process: turns, threads, memory, failures, bytes."""

import inspect
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    BATCH,
    CUT,
    OTHER,
    RATE,
    SHAPES,
    SPEC,
    bytes_of,
    images,
    plans,
    segments,
    stream,
    tiny,
    trainer,
    write_npz,
)
from torch import Tensor

from huscf_flwr.nets import initial_state
from huscf_flwr.procedure import ClientTraining, Steps, advance
from huscf_flwr.runner import in_process
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.session import SessionOutcome, SessionPlan
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Iteration, Segments
from huscf_flwr.tensors import Tensors
from simulations.engine import Engine

pytestmark = pytest.mark.usefixtures("few_steps")

Spoil = Callable[[dict[str, Tensor]], None]


class Told(Segments):
    """Tells of each iteration who is in it, and calls `look` before each answer."""

    def __init__(self, look: Callable[[Sequence[int]], None] | None = None) -> None:
        super().__init__(segments().nets, SHAPES, batch_size=BATCH, learning_rate=RATE)
        self.joint: list[list[int]] = []
        self._look = look

    def iteration(self, places: Mapping[int, Any]) -> Iteration:
        self.joint.append(list(places))
        iteration = super().iteration(places)
        answer = iteration.answer

        def watched(exchange: int, requests: Mapping[int, Tensors]) -> dict[int, Tensors]:
            if self._look is not None:
                self._look(list(requests))
            return answer(exchange, requests)

        iteration.answer = watched  # type: ignore[method-assign]
        return iteration


class Own(HeadsAndTails):
    """A client that may spoil what it sends in one exchange of one iteration."""

    def __init__(self, place: tuple[int, int] | None = None, spoil: Spoil | None = None) -> None:
        state = initial_state(SPEC, 0)
        super().__init__(SPEC, SHAPES, CUT, state, learning_rate=RATE, batch_size=BATCH)
        self._place, self._spoil = place, spoil
        self._index = -1

    def iteration(self, batch: Any) -> Steps:
        self._index += 1
        steps = super().iteration(batch)
        request = next(steps)
        for exchange in itertools.count():
            own = dict(request)
            if (self._index, exchange) == self._place and self._spoil is not None:
                self._spoil(own)
            answer = yield own
            try:
                request = steps.send(answer)
            except StopIteration as done:
                return done.value


def train(
    sessions: list[SessionPlan],
    halves: Mapping[int, HeadsAndTails],
    iterations: int,
    cohort: int | None,
    part: type[ClientTraining] = ClientTraining,
) -> tuple[list[SessionOutcome], dict[int, Exception], dict[int, ClientTraining]]:
    """A round; how clients fared, why some are out, and their parts."""
    runner = InProcessRunner(cohort)
    runner.open_round(1, sessions)
    parts = {k: part(half, stream(k).__getitem__, iterations) for k, half in halves.items()}
    with ThreadPoolExecutor(2) as workers:
        raised = runner.train(parts, workers)
    return runner.close_round(), raised, parts


def test_twenty_clients_advance_evenly() -> None:
    """At every step of the server, nobody is more than an iteration ahead of anybody."""
    server, clients, iterations = Told(), 20, 3
    halves = {k: trainer(CUT, initial_state(SPEC, 0)) for k in range(clients)}
    outcomes, _, _ = train(plans(server, [CUT] * clients, iterations), halves, iterations, 4)
    begun = Counter(dict.fromkeys(range(clients), 0))
    for joint in server.joint:
        begun.update(joint)
        assert len(joint) == 4
        assert max(begun.values()) - min(begun.values()) <= 1
    assert len(server.joint) == 15
    assert [(o.iterations, o.failure) for o in outcomes] == [(iterations, None)] * clients


def test_many_clients_need_no_more_threads_than_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "one.npz", images(200))
    most = {}
    for clients in (8, 64):
        before, seen = set(threading.enumerate()), []

        def counting(
            *args: Any, before: set[threading.Thread] = before, seen: list[int] = seen
        ) -> Tensors | None:
            seen.append(len(set(threading.enumerate()) - before))
            return advance(*args)

        monkeypatch.setattr(in_process, "advance", counting)
        settings = {"domains": "one.npz", "clusters": "1", "num_server_rounds": 1}
        Engine(tiny(num_clients=clients, output_dir=f"{clients}", **settings), str(tmp_path)).run()
        assert len(seen) >= 7 * clients
        most[clients] = max(seen)
    assert 0 < most[64] <= most[8]


def _raise(sent: dict[str, Tensor]) -> None:
    raise OSError("the disk is full")


def _nan(sent: dict[str, Tensor]) -> None:
    sent["fake"] = torch.full_like(sent["fake"], float("nan"))


def _shape(sent: dict[str, Tensor]) -> None:
    sent["fake"] = sent["fake"][:-1]


FAULTS: dict[str, tuple[Spoil, str]] = {
    "raises": (_raise, "raised OSError before {}: the disk is full"),
    "NaN": (_nan, 'sent an invalid frame in {}: "fake" has values from nan to nan'),
    "shape": (_shape, r'sent an invalid frame in {}: "fake" has shape \(3, .* was due'),
}


@pytest.mark.parametrize("cohort", [1, None])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    "exchange", [Exchange.GENERATE, Exchange.DISCRIMINATOR_STEP, Exchange.GENERATOR_STEP]
)
def test_a_client_that_fails_is_left_out(
    exchange: Exchange, kind: str, cohort: int | None
) -> None:
    """It is named, with where it failed, and holds nothing; the others complete the round."""
    spoil, message = FAULTS[kind]
    server = segments()
    halves = {0: Own(), 1: Own((1, exchange), spoil), 2: Own()}
    outcomes, raised, parts = train(plans(server, [CUT] * 3, 3), halves, 3, cohort)
    place = f"exchange {exchange.name} of iteration 1 of round 1"
    assert outcomes[1].failure is not None
    assert re.match("client 1 " + message.format(place), outcomes[1].failure)
    assert [o.iterations for o in outcomes] == [3, 1, 3]
    assert [outcomes[k].failure for k in (0, 2)] == [None, None]
    assert [len(part.results) for part in parts.values()] == [3, 1, 3]
    assert list(raised) == [1] and str(raised[1]) in outcomes[1].failure
    assert outcomes[1].result is None
    assert all(p.grad is None for p in halves[1].nets.parameters())
    for half in (server, halves[0], halves[2]):
        assert all(torch.isfinite(value).all() for value in half.nets.state_dict().values())


class Brief(Own):
    """Sends nothing at all."""

    def iteration(self, batch: Any) -> Steps:
        yield from ()


class Lengthy(Own):
    """Sends what an iteration begins with once more at its end."""

    def iteration(self, batch: Any) -> Steps:
        steps = super().iteration(batch)
        first = advance(steps)
        assert first is not None
        request: Tensors | None = first
        while request is not None:
            request = advance(steps, (yield request))
        yield first


@pytest.mark.timeout(30)
@pytest.mark.parametrize("cohort", [1, None])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Brief, "raised TypeError before exchange GENERATE of iteration 0 .* has ended before"),
        (Lengthy, "raised TypeError before .* goes on after the last exchange"),
    ],
    ids=["nothing", "too much"],
)
def test_a_client_that_sends_too_little_or_too_much_is_left_out(
    kind: type[Own], message: str, cohort: int | None
) -> None:
    halves = {0: Own(), 1: kind()}
    outcomes, _, _ = train(plans(segments(), [CUT] * 2, 2), halves, 2, cohort)
    assert (outcomes[0].iterations, outcomes[0].failure) == (2, None)
    assert re.search(message, outcomes[1].failure or "")


def test_a_client_that_waits_its_turn_is_in_no_iteration() -> None:
    """Only those whose exchange the server answers are in the middle of something."""
    begun: list[tuple[ClientTraining, Steps]] = []
    seen: list[int] = []

    class Kept(ClientTraining):
        def steps(self, index: int) -> Steps:
            begun.append((self, super().steps(index)))
            return begun[-1][1]

    def look(clients: Sequence[int]) -> None:
        suspended = [
            part for part, steps in begun if inspect.getgeneratorstate(steps) == "GEN_SUSPENDED"
        ]
        assert [part.half for part in suspended] == [halves[k] for k in clients]
        for k in halves.keys() - set(clients):
            assert all(p.grad is None for p in halves[k].nets.parameters())
        seen.append(len(suspended))

    halves = {k: trainer(CUT, initial_state(SPEC, 0)) for k in range(3)}
    train(plans(Told(look), [CUT] * 3, 2), halves, 2, 1, Kept)
    assert seen == [1] * 3 * 2 * len(Exchange)


class Slow(Own):
    """Takes its time before each exchange."""

    def __init__(self, delays: Iterator[float]) -> None:
        super().__init__()
        self._delays = delays

    def iteration(self, batch: Any) -> Steps:
        steps = super().iteration(batch)
        request = advance(steps)
        while request is not None:
            time.sleep(next(self._delays, 0))
            request = advance(steps, (yield request))


@pytest.mark.parametrize("cohort", [1, 2, None])
def test_the_same_clients_end_in_the_same_bytes(cohort: int | None) -> None:
    """Whichever of them is the fastest."""
    found = []
    for slowest in (0, 2):
        server = segments()
        halves = {k: Slow(iter([0.01] * 8) if k == slowest else iter(())) for k in range(3)}
        train(plans(server, [CUT] * 3, 3), halves, 3, cohort)
        nets = [server.nets, *(half.nets for half in halves.values())]
        found.append([bytes_of(net.state_dict()) for net in nets])
    assert found[0] == found[1]


def test_clients_of_two_halves_of_the_server_train_as_if_apart() -> None:
    cuts = [CUT, OTHER, CUT]

    def trained(*groups: list[int]) -> list[dict[str, bytes]]:
        """Clients of each group with a half of their own, all in a round; final bytes."""
        servers = [segments(seed=group[0]) for group in groups]
        sessions = [
            SessionPlan(str(k), k, server, cuts[k % 3], 3)
            for server, group in zip(servers, groups, strict=True)
            for k in group
        ]
        state = initial_state(SPEC, 0)
        halves = {s.client: trainer(s.place, state) for s in sessions}
        outcomes, _, _ = train(sessions, halves, 3, None)
        assert [(o.iterations, o.failure) for o in outcomes] == [(3, None)] * len(sessions)
        nets = [server.nets for server in servers] + [half.nets for half in halves.values()]
        return [bytes_of(net.state_dict()) for net in nets]

    first, second = trained([0, 1, 2]), trained([3, 4, 5])
    both = trained([0, 1, 2], [3, 4, 5])
    assert both == [first[0], second[0], *first[1:], *second[1:]]
    assert first[0] != second[0]
