"""Frames over the network: one bidirectional gRPC stream of bytes per client and round.

The stream is not encrypted; run it inside a private network or a tunnel. Clients only dial out.
A client whose connection breaks dials again and repeats its last frame; the runner answers a
repeated frame with the answer it gave, so nothing is trained twice.
"""

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from huscf_flwr.errors import UserError
from huscf_flwr.wire.channel import (
    RECONNECT_SECONDS,
    Desk,
    IterationLost,
    Reception,
    SessionError,
)
from huscf_flwr.wire.frames import Frame, FrameError, decode, encode

MAX_FRAME_BYTES = 256 * 2**20
"""The largest frame either end takes; gRPC refuses larger ones before it allocates memory."""

_SERVICE, _METHOD = "huscf.Runner", "Session"
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_GOODBYE = b""
_ANSWER, _LOST, _ENDED = b"A", b"L", b"E"
_MAX_STREAMS = 4096  # a thread each, made when a client connects


class FrameServer:
    """Takes clients' streams on a port to the desks of a reception."""

    def __init__(self, reception: Reception, bind: str) -> None:
        """Listen on `bind` (`host:port`; port 0 takes a free one, see `port`).

        Raises
        ------
        UserError: the address cannot be bound, for example because the port is in use.
        """
        self._reception = reception
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_STREAMS, thread_name_prefix="runner-stream"),
            options=[*_OPTIONS, ("grpc.so_reuseport", 0)],
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})]
        )
        try:
            self.port: int = self._server.add_insecure_port(bind)
        except RuntimeError as error:
            raise UserError(
                f'runner-bind="{bind}" cannot be bound: the port is in use or the host is not '
                "this machine's; port 0 takes a free port"
            ) from error
        self._server.start()

    def close(self) -> None:
        """Stop listening and break off open streams."""
        self._server.stop(grace=None).wait()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        token = dict(context.invocation_metadata()).get("token", "")
        try:
            desk = self._reception.join(str(token))
        except SessionError as error:
            yield _ENDED + str(error).encode()
            return
        connection = desk.connection
        try:
            for data in requests:
                if data == _GOODBYE:
                    desk.leave("closed its channel")
                    return
                answer = self._answer(desk, data)
                yield answer
                if answer.startswith(_ENDED):
                    return
        finally:  # a stream that ends without a goodbye may be dialled again
            desk.disconnected(connection)

    @staticmethod
    def _answer(desk: Desk, data: bytes) -> bytes:
        try:
            return _ANSWER + encode(desk.exchange_frame(decode(data)))
        except IterationLost as lost:
            return _LOST + str(lost).encode()
        except FrameError as error:
            desk.leave(f"sent an invalid frame ({error})")
            return _ENDED + str(desk.failure).encode()
        except SessionError as error:
            return _ENDED + str(error).encode()


class GrpcChannel:
    """A client's stream to the runner at an address; it is opened by the first exchange."""

    def __init__(
        self, address: str, token: str, *, dial_timeout: float, round_timeout: float
    ) -> None:
        """Remember where to dial.

        Parameters
        ----------
        address: `host:port` of the runner.
        token: the secret that the strategy sent to this client.
        dial_timeout: seconds to try to reach the runner at first.
        round_timeout: seconds after which a stream ends, whatever happens on it.
        """
        self._address = address
        self._token = token
        self._dial_timeout = dial_timeout
        self._round_timeout = round_timeout
        self._connection: _Connection | None = None
        self._connected_before = False

    def exchange(self, frame: Frame) -> Frame:
        data = encode(frame)
        if len(data) > MAX_FRAME_BYTES:
            raise SessionError(
                f"a frame of {len(data) / 2**20:.0f} MiB exceeds the limit of "
                f"{MAX_FRAME_BYTES / 2**20:.0f} MiB: lower batch-size"
            )
        patience = RECONNECT_SECONDS if self._connected_before else self._dial_timeout
        deadline: float | None = None  # runs from the first failure
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                answer = self._connection.send(data)
                self._connected_before = True
                break
            except grpc.RpcError as error:
                self._drop_connection()
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise SessionError(
                        f"the stream to the runner at {self._address} ended after "
                        f"round-timeout={self._round_timeout:g} s"
                    ) from error
                status = f"{error.code().name}: {error.details()}"
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise SessionError(
                        f"the stream to the runner at {self._address} broke: {status}"
                    ) from error
                deadline = deadline or time.monotonic() + patience
                if time.monotonic() > deadline:
                    raise SessionError(
                        f"cannot reach the runner at {self._address} within {patience:g} s: "
                        f"{status}"
                    ) from error
                time.sleep(0.1)
        kind, body = answer[:1], answer[1:]
        if kind == _ANSWER:
            return decode(body)
        if kind == _LOST:
            raise IterationLost(body.decode())
        raise SessionError(body.decode())

    def _connect(self) -> "_Connection":
        return _Connection(self._address, self._token, self._round_timeout)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.leave()
            self._connection = None

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None


class _Connection:
    """One dialled stream."""

    def __init__(self, address: str, token: str, round_timeout: float) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._answers = method(
            iter(self._requests.get, None),
            metadata=[("token", token)],
            timeout=round_timeout,
        )

    def send(self, data: bytes) -> bytes:
        """Send one frame and wait for its answer; raises `grpc.RpcError`."""
        self._requests.put(data)
        for answer in self._answers:
            return bytes(answer)
        raise SessionError("the runner closed the stream")

    def leave(self) -> None:
        """Tell the runner that no more frames come, and close."""
        self._requests.put(_GOODBYE)
        self._requests.put(None)
        try:
            for _ in self._answers:
                pass
        except grpc.RpcError:
            pass  # the runner is gone; there is nobody to tell
        self._channel.close()

    def abandon(self) -> None:
        """Break off, so that the runner does not take it for a leave."""
        self._answers.cancel()
        self._channel.close()
        self._requests.put(None)  # ends gRPC's thread that waits for frames to send
