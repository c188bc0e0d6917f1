"""The way between a strategy and a runner: one bidirectional gRPC stream for a run, over TLS.

The strategy dials, trusts the certificate of the kit alone, and shows the kit's secret before
anything that it sends is read. Requests are answered one by one. The stream is the lifeline: when
it ends, whichever side is left ends what it does for the other.
"""

import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grpc

from huscf_flwr.errors import UserError, cause
from huscf_flwr.remote.kit import CERTIFICATE, NAME, SECRET, RunnerKit
from huscf_flwr.remote.messages import Message, decode, encode

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 2**30
"""The largest message: all blocks that a runner gets for a round, with moments."""

_SERVICE, _METHOD = "huscf.RunnerControl", "Run"
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A machine that is gone is noticed within nine seconds.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
]
_SERVER_OPTIONS = [
    *_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 2),  # of a connection
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_metadata_size", 4096),
    ("grpc.absolute_max_metadata_size", 4096),
]
_SEAT_SECONDS = 10.0
"""How long a strategy waits for the runner to be done with the one before."""

_STREAMS = 16
FAILED, WRONG = "failed", "wrong"
"""Kinds of answers: the runner cannot go on with the round; it was asked the impossible."""


class RunnerLost(Exception):
    """A runner is gone or cannot go on; the message says which, and why."""


class RoundFailed(RunnerLost):
    """It is there, but cannot go on with its round: maybe as another one is gone."""


class Answering(Protocol):
    """What a runner does for one strategy."""

    def answer(self, request: Message) -> Message:
        """Do what is asked for; raises `UserError` where that is impossible."""
        ...

    def abandon(self) -> None:
        """The strategy is gone: free whoever waits for something. From any thread."""
        ...

    def close(self) -> None:
        """End it all."""
        ...


class ControlServer:
    """Takes one strategy at a time."""

    def __init__(self, kit: RunnerKit, bind: str, serve: Callable[[], Answering]) -> None:
        """Listen on `bind`, `host:port`; `serve` begins to work for a strategy.

        Raises
        ------
        UserError: the address cannot be bound.
        """
        self._secret = kit.secret.encode()
        self._serve_one = serve
        self._seat = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(_STREAMS, thread_name_prefix="control"), options=_SERVER_OPTIONS
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})]
        )
        own = kit.own()
        try:
            credentials = grpc.ssl_server_credentials([(own.key, own.public)])
            self.port: int = self._server.add_secure_port(bind, credentials)
        except RuntimeError as error:
            raise UserError(
                f"--control {bind}: cannot be bound: the port is in use, or the host is not this "
                "machine's, or the kit's key is not that of its certificate"
            ) from error
        self._server.start()

    def close(self) -> None:
        """Stop listening, and break off with a strategy that is there."""
        self._server.stop(grace=None).wait()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        shown = dict(context.invocation_metadata()).get("secret", "")
        if not secrets.compare_digest(str(shown).encode(), self._secret):
            log.warning("%s showed a wrong secret", context.peer())
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a wrong secret")
        if not self._seat.acquire(timeout=_SEAT_SECONDS):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "another run has it")
        try:
            log.info("a run begins, of %s", context.peer())
            station = self._serve_one()
            try:
                context.add_callback(station.abandon)
                for data in requests:
                    yield encode(_answer(station, data))
            finally:
                station.close()
                log.info("the run is over")
        finally:
            self._seat.release()


def _answer(station: Answering, data: bytes) -> Message:
    try:
        return station.answer(decode(data))
    except (UserError, ValueError) as error:
        return Message(WRONG, {"why": cause(error)})
    except Exception as error:  # whatever it is, the strategy has to know
        log.warning("the round is lost here: %s", cause(error))
        return Message(FAILED, {"why": cause(error)})


class Control:
    """A strategy's stream to a runner. Any thread may ask; answers come one by one."""

    def __init__(self, address: str, kit: RunnerKit, gone: Callable[[RunnerLost], None]) -> None:
        """Dial.

        Parameters
        ----------
        address: `host:port` of the runner's `--control`.
        kit: what both know.
        gone: called once when the stream ends, but by `close`, from another thread.
        """
        self.address = address
        self._kit = kit
        self._gone = gone
        self._why = ""
        self._answered = False
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        credentials = grpc.ssl_channel_credentials(kit.certificate)
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", NAME)]
        self._channel = grpc.secure_channel(address, credentials, options=options)
        method = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._stream = method(iter(self._outbox.get, None), metadata=[("secret", kit.secret)])
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def ask(self, request: Message, seconds: float) -> Message:
        """Send a request and wait for its answer, for so long.

        Raises
        ------
        RunnerLost: the stream has ended or never was, the runner does not answer in time, or
            cannot go on.
        UserError: it cannot do what is asked for.
        """
        with self._lock:
            self._outbox.put(encode(request))
            try:
                data = self._inbox.get(timeout=seconds)
            except queue.Empty:
                self._why = f"gave no answer within {seconds:g} s"
                self._stream.cancel()
                data = None
        if data is None:
            self._inbox.put(None)
            raise self._lost()
        answer = decode(data)
        why = answer.facts.get("why")
        if answer.kind == WRONG:
            raise UserError(f"the runner at {self.address}: {why}")
        if answer.kind == FAILED:
            raise RoundFailed(f"the runner at {self.address} cannot go on: {why}")
        return answer

    def close(self) -> None:
        """End the stream."""
        self._gone = lambda lost: None
        self._outbox.put(None)
        self._stream.cancel()
        self._channel.close()

    def _lost(self) -> RunnerLost:
        return RunnerLost(f"the runner at {self.address} {self._why}")

    def _read(self) -> None:
        try:
            for data in self._stream:
                self._answered = True
                self._inbox.put(data)
            why = "ended the connection"
        except grpc.RpcError as error:
            why = self._explained(error)
        self._why = self._why or why
        self._inbox.put(None)
        self._gone(self._lost())

    def _explained(self, error: Any) -> str:
        folder = self._kit.folder
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return f"does not take the secret in {folder / SECRET}: it has another kit"
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"is taken: {error.details()}"
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return f"broke off: {error.code().name}: {error.details()}"
        why = cause(Exception(error.details()))
        if self._answered:
            return f"is gone: {why}"
        other = f"or shows another certificate than {folder / CERTIFICATE}"
        return f"cannot be reached, {other}: {why}"
