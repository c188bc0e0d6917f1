"""The runner over the network: lost answers, killed processes, sizes, ports."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from conftest import (
    CUT,
    OTHER,
    SPEC,
    bytes_of,
    dial,
    frame,
    in_threads,
    running,
    segments,
    stream,
    train,
    trainer,
)

from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.system.certificates import self_signed
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.frame_server import FrameServer
from huscf_flwr.wire.frames import Frame, FrameKey
from huscf_flwr.wire.links import NAME, Link
from huscf_flwr.wire.tls_channel import TlsChannel


def test_a_lost_answer_is_fetched_over_a_new_connection() -> None:
    """A client whose connection breaks dials again with its last frame, and nothing differs."""
    states = []
    for breaks in (False, True):
        server, client = segments(), trainer(CUT, initial_state(SPEC, 0))
        with running(server) as runner:
            port = FrameServer(runner, "127.0.0.1:0")
            runner.expect(1, [CUT], 3)
            channel = dial(port, "0")
            if breaks:
                _break_after_answers(channel, {4, 11})
            train(client, channel, 3, stream(0).__getitem__)
            channel.close()
            (outcome,) = runner.close_round()
            port.close()
        assert (outcome.failure, outcome.iterations) == (None, 3)
        states.append((bytes_of(server.state()), bytes_of(client.nets.state_dict())))
    assert states[0] == states[1]


def _break_after_answers(channel: TlsChannel, numbers: set[int]) -> None:
    """Lose the answers with these numbers: they arrive, but the client sees a broken link."""
    count = 0

    class Broken(Link):
        def receive(self, largest: int) -> tuple[bytes, bytearray]:
            nonlocal count
            answer = super().receive(largest)
            count += 1
            if count in numbers:
                raise ConnectionResetError("broken by the test")
            return answer

    first = channel._dialled

    def dialled(seconds: float) -> Link:
        link = first(seconds)
        return Broken(link._connection)

    channel._dialled = dialled  # type: ignore[method-assign]


def _client_process(address: str, certificate: str, started) -> None:
    own = trainer(CUT, initial_state(SPEC, 0))
    channel = TlsChannel(address, "0", certificate, dial_timeout=20, round_timeout=60)
    data = stream(0)

    def batches(index: int):
        if index == 2:
            started.set()
            time.sleep(600)  # in mid-round, until it is killed
        return data[index]

    train(own, channel, 5, batches)


def test_a_killed_process_is_left_out_and_the_round_ends() -> None:
    spawn = multiprocessing.get_context("spawn")
    started, warnings = spawn.Event(), []
    with running(segments(), warnings, cohort=None) as runner:
        port = FrameServer(runner, "127.0.0.1:0")
        address = f"127.0.0.1:{port.port}"
        runner.expect(1, [CUT, OTHER], 5)
        victim = spawn.Process(target=_client_process, args=(address, port.certificate, started))
        victim.start()
        survivor = trainer(OTHER, initial_state(SPEC, 0))

        def survive() -> None:
            channel = dial(port, "1")
            train(survivor, channel, 5, stream(1).__getitem__)
            channel.close()

        def kill() -> None:
            assert started.wait(60)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()

        in_threads([survive, kill])
        first, second = runner.close_round()
        port.close()
    assert (
        first.failure
        and "client 0 disconnected in exchange GENERATE of iteration 2" in first.failure
    )
    assert (second.iterations, second.failure) == (5, None)
    assert any(first.failure in warning for warning in warnings)


@dataclass
class _Desk:
    """Of whoever comes; answers as it is told to."""

    answer: Callable[[Frame], Frame]
    ended_at: float | None = None

    def join(self, token: str) -> "_Desk":
        return self

    def exchange_frame(self, sent: Frame) -> Frame:
        return self.answer(sent)

    def refuse(self, reason: str) -> str:
        return reason

    def leave(self, reason: str) -> None: ...

    def disconnected(self) -> None: ...


@contextmanager
def _dialled(desk: _Desk) -> Iterator[TlsChannel]:
    server = FrameServer(desk, "127.0.0.1:0")
    channel = dial(server, "t")
    try:
        yield channel
    finally:
        channel.close()
        server.close()


def _frame(size: int) -> Frame:
    return Frame(FrameKey(1, 0, Exchange.GENERATE), {"fake": torch.rand(size)})


def test_a_large_frame_passes() -> None:
    sent = _frame(16 * 2**20)
    with _dialled(_Desk(lambda frame: frame)) as channel:
        assert torch.equal(channel.exchange(sent).tensors["fake"], sent.tensors["fake"])


def test_a_half_that_fails_ends_the_session_with_why() -> None:
    def as_bits(frame: Frame) -> Frame:
        return Frame(frame.key, {"fake": torch.zeros(3, dtype=torch.complex64)})

    with _dialled(_Desk(as_bits)) as channel, pytest.raises(SessionError, match="ValueError: "):
        channel.exchange(_frame(3))


def test_a_silent_connection_of_a_session_that_is_over_is_broken_off() -> None:
    desk = _Desk(lambda frame: frame)
    with _dialled(desk) as channel:
        channel.exchange(_frame(3))
        desk.ended_at = time.monotonic() - 100
        assert channel._link is not None
        channel._link.wait_at_most(30)
        with pytest.raises(ConnectionResetError, match="other end has closed"):
            channel._link.receive(0)


def test_a_port_in_use_is_named() -> None:
    with running(segments()) as runner:
        server = FrameServer(runner, "127.0.0.1:0")
        with pytest.raises(UserError, match=f'runner-bind="127.0.0.1:{server.port}".*in use'):
            FrameServer(runner, f"127.0.0.1:{server.port}")
        server.close()


def test_nobody_answers() -> None:
    channel = TlsChannel(
        "127.0.0.1:9",
        "t",
        self_signed(NAME).public.decode(),
        dial_timeout=0.5,
        round_timeout=60,
    )
    with pytest.raises(SessionError, match=r"cannot reach the runner at 127\.0\.0\.1:9 within"):
        channel.exchange(frame(Exchange.GENERATE))
    channel.close()


def test_the_end_of_a_round_is_not_taken_for_a_runner_out_of_reach() -> None:
    with running(segments(), cohort=None) as runner:
        server = FrameServer(runner, "127.0.0.1:0")
        runner.expect(1, [CUT, CUT], 1)
        channel = dial(server, "0", round_timeout=0.5)
        with pytest.raises(SessionError, match=r"ended after round-timeout=0\.5 s"):
            channel.exchange(frame(Exchange.GENERATE))  # and waits for client 1
        channel.close()
        server.close()
