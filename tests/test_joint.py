"""What several runners compute is one training: the same numbers as by one, and nobody hangs."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from conftest import (
    CUT,
    OTHER,
    SPEC,
    LocalChannel,
    bytes_of,
    in_threads,
    running,
    segments,
    stream,
    train,
    trainer,
    wait_until_active,
)

from huscf_flwr.clustering.averages import weighted_average
from huscf_flwr.nets import State, initial_state
from huscf_flwr.nets.trained import whole_state
from huscf_flwr.procedure import ClientTraining, advance
from huscf_flwr.remote.joint import EveryFew, JoinedHalf, Joint, Lockstep
from huscf_flwr.remote.peers import Meeting, Peers, PeersLost, Rendezvous
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.runner import Runner
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.system.cpu import use_threads
from huscf_flwr.wire.channel import SessionError

HERE = "127.0.0.1"
Shards = list[dict[int, Cut]]
TWO: Shards = [{0: CUT, 1: OTHER}, {2: OTHER, 3: CUT}]


@contextmanager
def met(size: int, seconds: float = 60.0) -> Iterator[list[Peers]]:
    """As many runners of a round, all in this process."""
    place = Rendezvous(HERE)
    with ThreadPoolExecutor(size) as pool:
        meetings = [Meeting("r", k, size, HERE, HERE, place.port, seconds) for k in range(size)]
        peers = list(pool.map(Peers, meetings))
    try:
        yield peers
    finally:
        for one in peers:
            one.close()


def jointly(every: int, halves: list[Segments], peers: list[Peers]) -> list[JoinedHalf]:
    """The half that the runners have in common, as each has it."""
    made: list[Joint] = [
        Lockstep({0: half}, one) if every == 1 else EveryFew({0: half}, one, every)
        for half, one in zip(halves, peers, strict=True)
    ]
    return [JoinedHalf(half, joint, 0) for half, joint in zip(halves, made, strict=True)]


def trainers(shards: Shards, dtype: torch.dtype = torch.float64) -> dict[int, HeadsAndTails]:
    state = initial_state(SPEC, 0, dtype)
    return {k: trainer(cut, state) for shard in shards for k, cut in shard.items()}


def train_shard(
    half: JoinedHalf | Segments,
    cuts: dict[int, Cut],
    halves: dict[int, HeadsAndTails],
    iterations: range,
    cohort: int | None = None,
) -> None:
    """Let the clients of one runner train, step by step."""
    count = len(iterations)
    runner = InProcessRunner(cohort)
    runner.open_round(1, [SessionPlan(str(k), k, half, cut, count) for k, cut in cuts.items()])
    parts = {
        k: ClientTraining(halves[k], lambda i, k=k: stream(k)[iterations[i]], count) for k in cuts
    }
    with ThreadPoolExecutor(1, initializer=use_threads, initargs=(1,)) as workers:
        assert not runner.train(parts, workers)
    if isinstance(half, JoinedHalf):
        half.joint.close()


def train_shards(
    every: int, shards: Shards, clients: dict[int, HeadsAndTails], iterations: int
) -> list[Segments]:
    halves = [segments(torch.float64) for _ in shards]
    with met(len(shards)) as peers:
        joined = jointly(every, halves, peers)
        in_threads(
            [
                lambda half=half, cuts=cuts: train_shard(half, cuts, clients, range(iterations))
                for half, cuts in zip(joined, shards, strict=True)
            ]
        )
    return halves


def assert_close(found: State, due: State) -> None:
    assert found.keys() == due.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, due[name], rtol=0, atol=1e-10, msg=name)


def by_one(shards: Shards, clients: dict[int, HeadsAndTails], iterations: int) -> Segments:
    """One runner that serves each shard in a batch of its own, and adds up their gradients."""
    server = segments(torch.float64)
    for index in range(iterations):
        parts = [server.iteration(cuts) for cuts in shards]
        steps = {k: half.iteration(stream(k)[index]) for k, half in clients.items()}
        sent = {k: advance(step) for k, step in steps.items()}
        for exchange in range(6):
            answers = {}
            for part, cuts in zip(parts, shards, strict=True):
                answers |= part.answer(exchange, {k: sent[k] for k in cuts})
            parts[0].step(exchange)
            own = {k: {n: t.clone() for n, t in answer.items()} for k, answer in answers.items()}
            sent = {k: advance(steps[k], own[k]) for k in own}
    return server


def test_two_in_lockstep_are_one_that_adds_up_gradients() -> None:
    clients, alone = trainers(TWO), trainers(TWO)
    first, second = train_shards(1, TWO, clients, 3)
    one = by_one(TWO, alone, 3)
    due = {n: v for n, v in whole_state(one).items() if ".running_" not in n and "num_" not in n}
    assert_close({n: v for n, v in whole_state(first).items() if n in due}, due)
    assert bytes_of(whole_state(first)) == bytes_of(whole_state(second))
    for k, client in clients.items():
        assert_close(client.nets.state_dict(), alone[k].nets.state_dict())


def test_what_batch_norm_has_seen_is_averaged_at_the_end() -> None:
    """In the first iteration: of a mean over both cohorts, as the nets are alike till then."""
    first, _ = train_shards(1, TWO, trainers(TWO), 1)
    apart = []
    for cuts in TWO:
        server = segments(torch.float64)
        train_shard(server, cuts, trainers([cuts]), range(1))
        apart.append(server.state())
    name = next(n for n in apart[0] if n.startswith("gen.1") and n.endswith("running_mean"))
    mean = (apart[0][name] + apart[1][name]) / 2
    torch.testing.assert_close(first.state()[name], mean, rtol=0, atol=1e-12)
    counts = [n for n in apart[0] if n.endswith("num_batches_tracked")]
    assert all(first.state()[n].dtype == torch.int64 for n in counts)
    assert [int(first.state()[n]) for n in counts] == [int(apart[0][n]) for n in counts]


def test_every_few_iterations_the_mean_is_gone_on_with() -> None:
    clients, alone = trainers(TWO), trainers(TWO)
    first, second = train_shards(2, TWO, clients, 3)  # a meeting after two, and at the end
    halves = [segments(torch.float64) for _ in TWO]
    for iterations in (range(2), range(2, 3)):
        for half, cuts in zip(halves, TWO, strict=True):
            train_shard(half, cuts, alone, iterations)
        mean = weighted_average([half.state() for half in halves], [0.5, 0.5])
        moments = weighted_average([half.optimisers.state() for half in halves], [0.5, 0.5])
        for half in halves:
            half.load(mean)
            half.optimisers.load(moments)
    assert_close(whole_state(first), whole_state(halves[0]))
    assert bytes_of(whole_state(first)) == bytes_of(whole_state(second))


@pytest.mark.parametrize("every", [1, 2])
def test_who_has_fewer_iterations_keeps_nobody_waiting(every: int) -> None:
    shards: Shards = [{0: CUT, 1: OTHER, 2: CUT}, {3: CUT}]
    clients, halves = trainers(shards), [segments(torch.float64) for _ in shards]
    with met(2) as peers:
        joined = jointly(every, halves, peers)
        in_threads(
            [
                lambda: train_shard(joined[0], shards[0], clients, range(3), cohort=1),
                lambda: train_shard(joined[1], shards[1], clients, range(2)),
            ]
        )
    assert bytes_of(whole_state(halves[0])) == bytes_of(whole_state(halves[1]))


@pytest.mark.parametrize("every", [1, 2])
def test_a_half_of_one_runner_alone_is_its_own(every: int) -> None:
    """The first runner serves client 0 with a half that the second does not have."""
    clients, alone = trainers([{0: CUT, 1: OTHER, 2: CUT}]), trainers([{0: CUT}])
    own, first, second = (segments(torch.float64) for _ in range(3))
    with met(2) as peers:
        joined = jointly(every, [first, second], peers)
        joint = joined[0].joint
        runner = InProcessRunner(None)
        halves = {0: JoinedHalf(own, joint, 1), 1: JoinedHalf(first, joint, 0)}
        cuts = {0: CUT, 1: OTHER}
        runner.open_round(1, [SessionPlan(str(k), k, halves[k], cuts[k], 2) for k in cuts])
        parts = {k: ClientTraining(clients[k], stream(k).__getitem__, 2) for k in cuts}

        def train_both() -> None:
            with ThreadPoolExecutor(1, initializer=use_threads, initargs=(1,)) as workers:
                assert not runner.train(parts, workers)
            joint.close()

        in_threads([train_both, lambda: train_shard(joined[1], {2: CUT}, clients, range(2))])
    assert bytes_of(whole_state(first)) == bytes_of(whole_state(second))
    reference = segments(torch.float64)
    train_shard(reference, {0: CUT}, alone, range(2))
    assert_close(whole_state(own), whole_state(reference))


@contextmanager
def two_runners(every: int, warnings: list[str], seconds: float = 60.0, **settings: float):
    """Two real runners in lockstep, with client 0 at the first and client 1 at the second."""
    halves = [segments(), segments()]
    with (
        met(2, seconds) as peers,
        running(halves[0], warnings, **settings) as first,
        running(halves[1], warnings, **settings) as second,
    ):
        for k, (runner, half) in enumerate(
            zip((first, second), jointly(every, halves, peers), strict=True)
        ):
            plans = [SessionPlan(str(k), k, half, CUT, 3)]
            runner.open_round(1, plans, half.joint.idle)
            runner.joint, runner.peers = half.joint, peers[k]
        yield first, second


def client(runner: Runner, number: int, batch: Callable[[int], object] | None = None) -> None:
    channel = LocalChannel(runner, str(number))
    try:
        own = trainer(CUT, initial_state(SPEC, 0))
        train(own, channel, 3, batch or stream(number).__getitem__)
    finally:
        channel.close()


def close_all(*runners: Runner) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = []

    def close(runner: Runner) -> None:
        (outcome,) = runner.close_round()
        runner.joint.close()
        found.append((outcome.client, outcome.failure))

    in_threads([lambda runner=runner: close(runner) for runner in runners])
    return sorted(found)


@pytest.mark.parametrize("every", [1, 2])
def test_clients_that_come_one_after_the_other_do_not_wait_for_each_other(every: int) -> None:
    """As where a simulation has one worker: the other runner has nobody to serve meanwhile."""
    with two_runners(every, []) as (first, second):
        client(first, 0)
        client(second, 1)
        assert close_all(first, second) == [(0, None), (1, None)]
        assert bytes_of(first.server.state()) == bytes_of(second.server.state())


def test_who_leaves_in_mid_iteration_does_not_stop_the_other_runner() -> None:
    def leaves(index: int) -> object:
        if index == 1:
            raise KeyError("gone")
        return stream(0)[index]

    def left() -> None:
        with pytest.raises(KeyError):
            client(first, 0, leaves)

    with two_runners(1, []) as (first, second):
        in_threads([left, lambda: client(second, 1)])
        (_, reason), stayed = close_all(first, second)
        assert reason and "closed its channel" in reason
        assert stayed == (1, None)
        assert bytes_of(first.server.state()) == bytes_of(second.server.state())


def test_a_round_that_closes_early_closes_for_both() -> None:
    begun = threading.Event()

    def waits(index: int) -> object:
        if index == 1:
            begun.set()
            assert closed.wait(60)
        return stream(0)[index]

    closed = threading.Event()
    with two_runners(1, []) as (first, second), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client, first, 0, waits)
        assert begun.wait(60)
        (_, early), (_, never) = close_all(first, second)
        closed.set()
        assert "the round ended before it was done" in str(waiting.exception())
        assert early and "the round ended before it was done" in early
        assert never and "it never connected" in never


def test_when_another_runner_is_gone_clients_are_told() -> None:
    with two_runners(1, []) as (first, second):

        def gone(index: int) -> object:
            if index == 1:
                second.peers.close()
            return stream(0)[index]

        with pytest.raises(SessionError, match=r"the runner (has )?stopped"):
            client(first, 0, gone)
        with pytest.raises(RuntimeError, match="another runner is gone"):
            first.close_round()


def test_a_runner_that_is_silent_is_not_waited_for_when_the_round_is_given_up() -> None:
    with met(2) as peers, running(segments()) as runner, ThreadPoolExecutor(1) as pool:
        (half,) = jointly(1, [runner.server], peers[:1])
        runner.open_round(1, [SessionPlan("0", 0, half, CUT, 3)])
        waiting = pool.submit(client, runner, 0)
        wait_until_active(runner, 1)
        peers[0].abandon()
        with pytest.raises(SessionError, match=r"the runner (has )?stopped"):
            waiting.result(30)


def test_a_silent_runner_is_waited_for_so_long() -> None:
    with met(2, seconds=0.2) as peers:
        began = time.monotonic()
        with pytest.raises(PeersLost, match="another runner is gone"):
            peers[0].sums([torch.ones(1)])
        assert time.monotonic() - began < 5
