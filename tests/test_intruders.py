"""Who gets through to the runner, and what a stranger or a broken client can do to it."""

import contextlib
import ctypes
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from conftest import (
    CUT,
    OTHER,
    SPEC,
    ServedBy,
    dial,
    encode,
    frame,
    in_threads,
    running,
    segments,
    stream,
    train,
    trainer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from huscf_flwr.nets import initial_state
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.system.certificates import self_signed
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.frame_server import FrameServer
from huscf_flwr.wire.frames import Frame, FrameError, FrameKey, decode
from huscf_flwr.wire.links import ANSWER, FRAME, NAME, TOKEN, WELCOME, Link
from huscf_flwr.wire.tls_channel import TlsChannel, trusting

GOOD = encode(frame(Exchange.GENERATE))


@contextmanager
def listening(
    warnings: list[str] | None = None, cohort: int | None = 64, **limits: int
) -> Iterator[tuple[ServedBy, FrameServer]]:
    """A runner, and its port."""
    with running(segments(), warnings, cohort) as runner:
        server = FrameServer(runner, "127.0.0.1:0", **limits)
        try:
            yield runner, server
        finally:
            server.close()


@contextmanager
def connected(server: FrameServer, token: str) -> Iterator[Link]:
    """The connection of somebody who knows the certificate, and who says this is its token."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        link = Link(trusting(server.certificate).wrap_socket(plain, server_hostname=NAME))
        link.send(TOKEN, [token.encode()])
        yield link
        link.close()


def answers(server: FrameServer, token: str, *frames: bytes) -> list[bytes]:
    """What these bytes are answered until the server closes, their kind first."""
    found = []
    with connected(server, token) as link, contextlib.suppress(ConnectionError):
        kind, said = link.receive(2**20)
        if kind != WELCOME:
            return [kind + said]
        for sent in frames:
            link.send(FRAME, [sent])
            kind, said = link.receive(2**24)
            found.append(kind + said)
    return found


def honest(server: FrameServer, token: str = "0", iterations: int = 1) -> None:
    """A client trains its round, whatever else goes on."""
    channel = dial(server, token)
    client = trainer(CUT, initial_state(SPEC, 0))
    assert len(train(client, channel, iterations, stream(0).__getitem__)) == iterations
    channel.close()


@pytest.mark.fault("plain text on the TLS port, and a foreign certificate", lost="nothing")
def test_nothing_is_said_in_clear_and_no_other_certificate_is_trusted() -> None:
    with listening() as (runner, server):
        runner.expect(1, [CUT], 1)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in plain.recv(100)
        impostor = self_signed(NAME).public.decode()
        address = f"127.0.0.1:{server.port}"
        channel = TlsChannel(address, "0", impostor, dial_timeout=0.5, round_timeout=60)
        with pytest.raises(SessionError, match="cannot reach"):
            channel.exchange(frame(Exchange.GENERATE))
        channel.close()
        honest(server)


@pytest.mark.fault("wrong, replayed and expired tokens", lost="nothing")
def test_a_token_is_good_for_its_client_and_its_round() -> None:
    with listening() as (runner, server):
        runner.expect(1, [CUT], 1)
        for token in ("", "1", "guess", "0" * 3000):
            (answer,) = answers(server, token, GOOD)
            assert answer.startswith(b"Eunknown token")
        honest(server)
        (outcome,) = runner.close_round()
        assert (outcome.iterations, outcome.failure) == (1, None)
        assert answers(server, "0", GOOD)[0].startswith(b"Eunknown token")  # replayed
        brief = runner.echo_token(0.0)
        assert answers(server, brief, GOOD)[0].startswith(b"Eunknown token")


@pytest.mark.fault("bad frames with the right token", lost="their stream")
def test_a_bad_frame_ends_its_stream_and_not_the_round() -> None:
    """Not even where it came with the right token; unless that goes on and on."""
    warnings: list[str] = []
    nan = encode(frame(Exchange.GENERATE, fill=float("nan")))
    with listening(warnings) as (runner, server):
        runner.expect(1, [CUT], 2)
        for bad in (b"garbage", GOOD[:-1], nan, encode(frame(Exchange.JUDGE))):
            (answer,) = answers(server, "0", bad, GOOD)
            assert answer.startswith(b"E")
        honest(server, iterations=2)
        assert runner.close_round()[0].failure is None
        assert not warnings
        runner.expect(2, [CUT], 2)
        found = [answers(server, "0", b"garbage") for _ in range(33)]
        assert b"invalid frame" in found[-1][0]
        assert "invalid frame" in str(runner.close_round()[0].failure)
        assert len(warnings) == 1


def test_a_client_that_sent_a_bad_frame_and_does_not_come_back_is_named_with_the_reason() -> None:
    warnings: list[str] = []
    with listening(warnings) as (runner, server):
        runner.expect(1, [CUT, CUT], 2)
        channel = dial(server, "1")
        with pytest.raises(SessionError, match=r'client 1 sent an invalid frame.*"fake" has'):
            channel.exchange(frame(Exchange.GENERATE, fill=float("inf")))
        channel.close()
        honest(server, iterations=2)
        first, second = runner.close_round()
    assert first.failure is None
    assert second.failure and "sent an invalid frame in exchange GENERATE" in second.failure
    assert [line for line in warnings if second.failure in line]


@pytest.mark.fault("many connections with one token", lost="nothing")
@pytest.mark.parametrize("connections", [200, pytest.param(4200, marks=pytest.mark.slow)])
def test_a_token_has_one_connection(connections: int) -> None:
    """The newest: so many connections of one token keep nobody out, and hold nothing."""
    with listening() as (runner, server), ExitStack() as open_links:
        runner.expect(1, [CUT], 1)
        token = runner.echo_token(600)
        links = []
        for _ in range(connections):
            link = open_links.enter_context(connected(server, token))
            assert link.receive(0) == (WELCOME, b"")
            links.append(link)
        for link in links[:-1]:
            with pytest.raises(ConnectionError):  # waits until it has ended
                link.receive(0)
        honest(server)
        links[-1].send(FRAME, [GOOD])
        assert links[-1].receive(2**20) == (ANSWER, GOOD)


@pytest.mark.fault("frames of 100 MiB", lost="nothing")
def test_large_frames_are_refused_and_not_kept() -> None:
    with listening(largest_frame=2**20) as (runner, server):
        token = runner.echo_token(60)
        sent = encode(Frame(FrameKey(0, 0, 0), {"fake": torch.zeros(2**18)}))
        assert answers(server, token, sent)[0].startswith(b"A")
        huge = bytes(100 * 2**20)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (refused,) = answers(server, token, huge)
        assert refused.startswith(b"E") and b"too large a frame" in refused
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert used < 120 * 2**10  # KiB: the test's own copy


@pytest.mark.fault("1,500 connections that say nothing, or half a hello", lost="nothing")
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00"])
def test_a_thousand_idle_connections_keep_nobody_out(said: bytes) -> None:
    with listening() as (runner, server), ExitStack() as idle:
        runner.expect(1, [CUT], 1)
        for _ in range(1500):
            plain = socket.create_connection(("127.0.0.1", server.port))
            idle.enter_context(plain).sendall(said)
        honest(server)
        assert threading.active_count() < 400


@settings(max_examples=1000, deadline=None)
@given(
    cut=st.integers(0, len(GOOD)),
    at=st.integers(0, len(GOOD) - 1),
    inserted=st.binary(max_size=40),
    end=st.integers(0, 40),
)
@pytest.mark.fault("any bytes as a frame", lost="nothing")
def test_any_bytes_are_a_frame_or_refused(cut: int, at: int, inserted: bytes, end: int) -> None:
    """Random bytes, and good frames that are changed, cut short or lengthened."""
    for data in (inserted, GOOD[:cut], GOOD[:at] + inserted + GOOD[at + end :]):
        try:
            found = decode(data)
        except FrameError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(t, torch.Tensor) for t in found.tensors.values())


@pytest.mark.slow
@pytest.mark.fault("10,000 random and changed frames, with a good token", lost="nothing")
def test_ten_thousand_frames_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered with a frame or one line, and an honest client trains meanwhile."""
    with listening() as (runner, server):
        runner.expect(1, [CUT], 20)
        token = runner.echo_token(600)

        @settings(max_examples=10_000, deadline=None, database=None)
        @given(
            random=st.booleans(),
            at=st.integers(0, len(GOOD) - 1),
            inserted=st.binary(max_size=40),
            end=st.integers(0, 40),
        )
        def send(random: bool, at: int, inserted: bytes, end: int) -> None:
            data = inserted if random else GOOD[:at] + inserted + GOOD[at + end :]
            (answer,) = answers(server, token, data)
            assert answer[:1] == b"A" or (answer[:1] == b"E" and b"\n" not in answer)

        in_threads([send, lambda: honest(server, iterations=20)])
        assert runner.close_round()[0].failure is None
    assert not [record for record in caplog.records if record.exc_info]


class Cable:
    """A way to a port, which can be cut: then nothing arrives, and neither end is told."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target = port
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                target = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, target]
                for pair in ((client, target), (target, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
            sink.close()

    def cut(self) -> None:
        """Let the system drop every packet, before it acknowledges it."""
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0
        program = struct.pack("HL", 1, ctypes.addressof(nothing))
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._sockets:
            end.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER

    def close(self) -> None:
        for end in (self._listener, *self._sockets):
            end.close()


@pytest.mark.skipif(sys.platform != "linux", reason="cuts connections as Linux can")
@pytest.mark.fault("a connection that is cut, and neither end told", lost="its part of a round")
def test_a_half_open_connection_is_noticed_within_ten_seconds() -> None:
    """Nothing comes and nothing is closed; the others wait no longer than that."""
    with listening(cohort=None) as (runner, server):  # nobody begins before the other is there
        runner.expect(1, [CUT, OTHER], 3)
        cable = Cable(server.port)
        address = f"127.0.0.1:{cable.port}"
        channel = TlsChannel(address, "1", server.certificate, dial_timeout=5, round_timeout=60)
        data = stream(1)
        times: list[float] = []

        def batches(index: int) -> object:
            if index == 1:
                cable.cut()
                times.append(time.monotonic())
            return data[index]

        def victim() -> None:
            with pytest.raises(SessionError):
                train(trainer(OTHER, initial_state(SPEC, 0)), channel, 3, batches)

        def others() -> None:
            honest(server, iterations=3)
            times.append(time.monotonic())

        in_threads([victim, others])
        cable.close()
        channel.close()
        first, second = runner.close_round()
    assert (first.iterations, first.failure) == (3, None)
    assert second.failure and "disconnected" in second.failure
    assert times[1] - times[0] < 16  # noticed in 10, and given 5 to come back
