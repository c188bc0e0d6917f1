"""The runner: who shares an iteration, what is answered twice, who is dropped and told why."""

import contextlib
import itertools
import threading
import time

import pytest
import torch
from conftest import (
    BATCH,
    CUT,
    OTHER,
    SHAPES,
    SPEC,
    LocalChannel,
    bytes_of,
    encode,
    frame,
    in_threads,
    running,
    segments,
    stream,
    train,
    train_all,
    train_in_process,
    trainer,
    wait_until_active,
)

from huscf_flwr.nets import initial_state
from huscf_flwr.runner import patience
from huscf_flwr.runner.session import Session
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.tensors import LARGEST, Checked, Tensors
from huscf_flwr.wire.channel import IterationLost, SessionError
from huscf_flwr.wire.frames import FrameError, FrameKey, decode


def test_frames_survive_the_wire() -> None:
    sent = frame(Exchange.DISCRIMINATE, iteration=7)
    got = decode(encode(sent))
    assert got.key == sent.key
    assert bytes_of(dict(got.tensors)) == bytes_of(dict(sent.tensors))
    for broken in (b"", b"x" * 40, encode(sent)[:-1], b"HSF0" + encode(sent)[4:]):
        with pytest.raises(FrameError):
            decode(broken)


def test_a_repeated_frame_gets_the_same_answer_and_trains_nothing_twice() -> None:
    results = []
    for repeats in (1, 3):
        server = segments()
        with running(server) as runner:
            runner.expect(1, [CUT], 1)
            channel = LocalChannel(runner, "0")
            answers = []
            for exchange in Exchange:
                same = [channel.exchange(frame(exchange)) for _ in range(repeats)]
                answers.append([bytes_of(dict(answer.tensors)) for answer in same])
            assert all(answer == group[0] for group in answers for answer in group)
            runner.close_round()
        results.append((bytes_of(server.state()), [group[0] for group in answers]))
    assert results[0] == results[1]


@pytest.mark.parametrize("cohort", [3, 1])
def test_any_number_of_clients_trains(cohort: int) -> None:
    """Sessions beyond the cohort take turns; each completes all its iterations."""
    cuts = [CUT, OTHER, CUT, OTHER, CUT]
    with running(segments(), cohort=cohort) as runner:
        runner.expect(1, cuts, 4)
        losses = train_all(runner, [trainer(c, initial_state(SPEC, 0)) for c in cuts], 4)
        outcomes = runner.close_round()
    assert [len(client) for client in losses] == [4] * 5
    assert [(o.iterations, o.failure) for o in outcomes] == [(4, None)] * 5
    assert all(o.result.shape == SHAPES.disc[2] for o in outcomes)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cohort_larger_than_the_pool_does_not_deadlock(workers: int) -> None:
    warnings: list[str] = []
    pool = threading.Semaphore(workers)
    with running(segments(), warnings, cohort=None, straggler_timeout=0.3) as runner:
        runner.expect(1, [CUT] * 4, 3)

        def client(k: int) -> None:
            with pool:
                channel = LocalChannel(runner, str(k))
                own = trainer(CUT, initial_state(SPEC, 0))
                train(own, channel, 3, stream(k).__getitem__)
                channel.close()

        in_threads([lambda k=k: client(k) for k in range(4)])
        assert [o.iterations for o in runner.close_round()] == [3] * 4
    assert any('cohort="all", but' in warning for warning in warnings)


def test_a_cohort_of_all_makes_iterations_joint() -> None:
    """Both clients are in every iteration, however late the second comes."""
    with running(segments(), cohort=None) as runner:
        runner.expect(1, [CUT, CUT], 2)
        sizes = []
        begin = runner.server.iteration
        runner.server.iteration = lambda cuts: sizes.append(len(cuts)) or begin(cuts)  # type: ignore
        clients = [trainer(CUT, initial_state(SPEC, 0)) for _ in range(2)]

        def late() -> None:
            wait_until_active(runner, 1)
            channel = LocalChannel(runner, "1")
            train(clients[1], channel, 2, stream(1).__getitem__)

        def early() -> None:
            channel = LocalChannel(runner, "0")
            train(clients[0], channel, 2, stream(0).__getitem__)

        in_threads([late, early])
        runner.close_round()
    assert sizes == [2, 2]


BAD = {
    "NaN": (lambda f: f["fake"].view(-1)[3].fill_(float("nan")), "values from nan to nan"),
    "infinite": (lambda f: f["fake"].view(-1)[3].fill_(float("inf")), "to inf: .* 1e\\+06"),
    "huge": (lambda f: f["fake"].fill_(1e25), 'fake" has values from 1e\\+25 to'),
    "shape": (lambda f: f.update(fake=f["fake"][:-1]), r"shape \(3, .* was due"),
    "dtype": (lambda f: f.update(fake=f["fake"].double()), "dtype torch.float64"),
    "name": (lambda f: f.update(label=f.pop("fake")), r"tensors \['label'\]"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("exchange", [Exchange.GENERATE, Exchange.JUDGE_GRADIENT])
def test_an_invalid_frame_drops_its_sender_only(kind: str, exchange: Exchange) -> None:
    """The frame touches no net, the sender is told why, the other goes on with finite nets."""
    spoil, message = BAD[kind]
    warnings: list[str] = []
    server = segments()
    with running(server, warnings, cohort=None) as runner:
        runner.expect(1, [CUT, OTHER], 3)

        def bad() -> None:
            channel = LocalChannel(runner, "0")
            for step in Exchange:
                sent = frame(step)
                if step is exchange:
                    spoil(sent.tensors)
                    with pytest.raises(SessionError, match=message):
                        channel.exchange(sent)
                    channel.close()
                    break
                channel.exchange(sent)

        def good() -> None:
            own = trainer(OTHER, initial_state(SPEC, 0))
            channel = LocalChannel(runner, "1")
            train(own, channel, 3, stream(1).__getitem__)

        in_threads([bad, good])
        first, second = runner.close_round()
    assert first.failure and "client 0" in first.failure
    assert exchange.name in first.failure
    assert (second.iterations, second.failure) == (3, None)
    assert len(warnings) == 1 and first.failure in warnings[0]
    assert all(torch.isfinite(value).all() for value in server.state().values())


def test_the_largest_values_that_may_be_sent_leave_the_others_training() -> None:
    server = segments()
    with running(server, cohort=None) as runner:
        runner.expect(1, [CUT, OTHER], 3)

        def large() -> None:
            channel = LocalChannel(runner, "0")
            for iteration, step in itertools.product(range(3), Exchange):
                channel.exchange(frame(step, iteration, fill=LARGEST))

        def good() -> None:
            own = trainer(OTHER, initial_state(SPEC, 0))
            train(own, LocalChannel(runner, "1"), 3, stream(1).__getitem__)

        in_threads([large, good])
        assert [(o.iterations, o.failure) for o in runner.close_round()] == [(3, None)] * 2
    assert all(torch.isfinite(value).all() for value in server.state().values())


def test_a_frame_out_of_order_ends_the_session() -> None:
    with running(segments()) as runner:
        runner.expect(1, [CUT], 2)
        channel = LocalChannel(runner, "0")
        channel.exchange(frame(Exchange.GENERATE))
        with pytest.raises(SessionError, match=r"JUDGE of iteration 0 .* DISCRIMINATE .* was due"):
            channel.exchange(frame(Exchange.JUDGE))
        with pytest.raises(SessionError, match="client 0 sent"):
            channel.exchange(frame(Exchange.DISCRIMINATE))


def test_an_unknown_token_is_refused() -> None:
    with running(segments()) as runner:
        with pytest.raises(SessionError, match="unknown token"):
            LocalChannel(runner, "0")
        runner.expect(1, [CUT], 1)
        with pytest.raises(SessionError, match="unknown token"):
            LocalChannel(runner, "guess")
        runner.close_round()
        with pytest.raises(SessionError, match="unknown token"):
            LocalChannel(runner, "0")


@pytest.mark.parametrize("late_in", [Exchange.DISCRIMINATE, Exchange.GENERATOR_STEP])
@pytest.mark.parametrize("checked", [False, True], ids=["sends late", "is checked for long"])
def test_a_straggler_loses_the_iteration_and_joins_the_next(
    late_in: Exchange, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    server = segments()
    others_done = threading.Event()
    check = Session.check

    def slow(session: Session, key: FrameKey, tensors: Tensors) -> Checked:
        if session.plan.client == 0 and key[1:] == (0, late_in):
            others_done.wait()
        return check(session, key, tensors)

    if checked:
        monkeypatch.setattr(Session, "check", slow)
    with running(server, warnings, cohort=None, straggler_timeout=0.3) as runner:
        runner.expect(1, [CUT, CUT], 2)

        def straggler() -> None:
            channel = LocalChannel(runner, "0")
            for step in Exchange:
                if step is late_in:
                    if not checked:
                        others_done.wait()
                    with pytest.raises(IterationLost, match="client 0 was late"):
                        channel.exchange(frame(step))
                    break
                channel.exchange(frame(step))
            for step in Exchange:
                channel.exchange(frame(step, iteration=1))

        def other() -> None:
            channel = LocalChannel(runner, "1")
            for step in Exchange:
                channel.exchange(frame(step))
            others_done.set()
            for step in Exchange:
                channel.exchange(frame(step, iteration=1))

        in_threads([straggler, other])
        outcomes = runner.close_round()
    assert [(o.iterations, o.failure) for o in outcomes] == [(1, None), (2, None)]
    assert any(late_in.name in warning and "client 0" in warning for warning in warnings)


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "slow"])
def test_who_keeps_the_others_waiting_again_and_again_is_left_out(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent in one exchange of every iteration, or just within what is waited for in each."""
    monkeypatch.setattr(patience, "_FLOOR_S", 0.3)
    monkeypatch.setattr(patience, "_ACCOUNT_S", 0.8)
    warnings: list[str] = []
    with running(segments(), warnings, cohort=None) as runner:
        runner.expect(1, [CUT] * 4, 40)
        own_pace = threading.Event()

        def bad(channel: LocalChannel, key: FrameKey) -> None:
            if key.iteration < 6:
                return
            if not silent:
                own_pace.wait(0.27)
            elif key.exchange == Exchange.DISCRIMINATE:
                own_pace.wait(0.4)

        def client(k: int) -> None:
            channel = LocalChannel(runner, str(k))
            for i in range(40):
                with contextlib.suppress(IterationLost):
                    for step in Exchange:
                        if k == 3:
                            bad(channel, FrameKey(1, i, step))
                        channel.exchange(frame(step, iteration=i))
            channel.close()

        def out() -> None:
            with pytest.raises(SessionError, match="client 3 kept the others waiting"):
                client(3)

        began = time.monotonic()
        in_threads([lambda k=k: client(k) for k in range(3)] + [out])
        took_s = time.monotonic() - began
        outcomes = runner.close_round()
    assert [o.iterations for o in outcomes[:3]] == [40] * 3
    assert outcomes[3].failure and outcomes[3].failure in "".join(warnings)
    assert took_s < 10  # where each iteration with it would have taken a third of a second or more


def test_a_dropped_clients_gradients_count_as_zero() -> None:
    """After a client vanished in mid-iteration, the others' part is what it is without it."""
    server: Segments = segments()
    iteration = server.iteration(dict.fromkeys((0, 1), CUT))
    requests = {k: dict(frame(Exchange.GENERATE, fill=0.1 + k).tensors) for k in (0, 1)}
    iteration.answer(Exchange.GENERATE, requests)
    gradient = frame(Exchange.GENERATOR_STEP, fill=0.01).tensors
    zero = {name: torch.zeros_like(value) for name, value in gradient.items()}
    whole = server.iteration(dict.fromkeys((0, 1), CUT))
    whole.answer(Exchange.GENERATE, requests)
    alone = iteration.answer(Exchange.GENERATOR_STEP, {1: gradient})
    grads = [p.grad.clone() for p in server.nets.gen.parameters()]
    server.optimisers.zero_grad()
    both = whole.answer(Exchange.GENERATOR_STEP, {0: zero, 1: gradient})
    assert torch.allclose(alone[1]["fake"], both[1]["fake"], atol=1e-9)
    for ours, theirs in zip(grads, server.nets.gen.parameters(), strict=True):
        assert torch.allclose(ours, theirs.grad, atol=1e-7)


class Writing(HeadsAndTails):
    """Overwrites every answer, once it has a copy."""

    def iteration(self, batch):
        steps = super().iteration(batch)
        request = next(steps)
        while True:
            answer = yield request
            own = {name: tensor.clone() for name, tensor in answer.items()}
            for tensor in answer.values():
                tensor.zero_()
            try:
                request = steps.send(own)
            except StopIteration as done:
                return done.value


def test_client_and_server_never_share_a_tensor() -> None:
    """What a client gets is its own: writing to it changes nothing on the server."""
    states = []
    for kind in (HeadsAndTails, Writing):
        server, state = segments(), initial_state(SPEC, 0)
        halves = [
            kind(SPEC, SHAPES, cut, state, learning_rate=1e-2, batch_size=BATCH)
            for cut in (CUT, OTHER)
        ]
        train_in_process(server, halves, [CUT, OTHER], 3)
        states.append([bytes_of(server.state()), *(bytes_of(h.nets.state_dict()) for h in halves)])
    assert states[0] == states[1]
