"""Frames over the network: one bidirectional gRPC stream of bytes per client and round, over TLS.

Clients only dial out, and trust the one certificate that they were told of. A client whose
connection breaks dials again and repeats its last frame; the runner answers a repeated frame with
the answer it gave, so nothing is trained twice. A token has one stream: a new one ends the one
before. Who has no token is sent away before anything is read of what it sends.
"""

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from huscf_flwr.errors import UserError
from huscf_flwr.system.certificates import self_signed
from huscf_flwr.system.files import allow_many_files
from huscf_flwr.wire.channel import (
    RECONNECT_SECONDS,
    Desk,
    IterationLost,
    Reception,
    SessionError,
)
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frames import Frame, FrameError, decode, encode

NAME = "huscf-runner"
"""What a runner's certificate is for, whatever address it is dialled at."""

MAX_FRAME_BYTES = 256 * 2**20
"""The largest frame that either end takes of whatever net; gRPC refuses larger ones before it
allocates memory."""

_SERVICE, _METHOD = "huscf.Runner", "Session"
_HEADERS = 2**16  # of a frame, besides its tensors
_NOTHING_COMPRESSED = 1
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_FRAME_BYTES + _HEADERS),
    ("grpc.compression_enabled_algorithms_bitset", _NOTHING_COMPRESSED),
    # Who is silent for five seconds is sent a ping, and the connection ends where the other end's
    # system does not acknowledge it within four. The ping's own answer may take longer: on a slow
    # link it stands behind a frame.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
]
_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 1),  # of a connection
    ("grpc.max_connection_idle_ms", 10_000),  # without a stream
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_metadata_size", 4096),
    ("grpc.absolute_max_metadata_size", 4096),
]
_CLIENT_OPTIONS = [
    *_OPTIONS,
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES + _HEADERS),
    ("grpc.ssl_target_name_override", NAME),
]
_GOODBYE = b""
_ANSWER, _LOST, _ENDED = b"A", b"L", b"E"
_MAX_STREAMS = 4096  # a thread each, made when a client connects


class FrameServer:
    """Takes clients' streams on a port to the desks of a reception."""

    def __init__(
        self,
        reception: Reception,
        bind: str,
        largest_frame: int = MAX_FRAME_BYTES,
        coding: Coding = EXACT,
    ) -> None:
        """Listen on `bind`, with a certificate made for it: see `certificate`.

        Parameters
        ----------
        reception: knows the tokens.
        bind: `host:port`; port 0 takes a free one, see `port`.
        largest_frame: bytes of the tensors of a frame, at most.
        coding: how frames are written, either way.

        Raises
        ------
        UserError: the address cannot be bound, for example because the port is in use.
        """
        self._reception = reception
        self._coding = coding
        self._streams: dict[str, Any] = {}
        self._streams_changed = threading.Lock()
        allow_many_files()  # a connection is one
        received = ("grpc.max_receive_message_length", largest_frame + _HEADERS)
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_STREAMS, thread_name_prefix="runner-stream"),
            options=[*_OPTIONS, *_SERVER_OPTIONS, received],
            maximum_concurrent_rpcs=_MAX_STREAMS,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})]
        )
        own = self_signed(NAME)
        self.certificate: str = own.public.decode()
        """What clients have to know in order to trust this server."""
        try:
            self.port: int = self._server.add_secure_port(
                bind, grpc.ssl_server_credentials([(own.key, own.public)])
            )
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
        token = str(dict(context.invocation_metadata()).get("token", ""))
        try:
            desk = self._reception.join(token)
        except SessionError as error:
            yield _ENDED + str(error).encode()
            return
        self._take_over(token, context)
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
            with self._streams_changed:
                if self._streams.get(token) is context:
                    del self._streams[token]
            desk.disconnected()

    def _take_over(self, token: str, context: Any) -> None:
        """Let this stream be the only one with its token."""
        with self._streams_changed:
            before = self._streams.get(token)
            self._streams[token] = context
        if before is not None:
            before.cancel()

    def _answer(self, desk: Desk, data: bytes) -> bytes:
        try:
            answer = desk.exchange_frame(decode(data, self._coding))
            return encode(answer, self._coding, before=_ANSWER)
        except IterationLost as lost:
            return _LOST + str(lost).encode()
        except FrameError as error:
            return _ENDED + desk.refuse(f"sent an invalid frame ({error})").encode()
        except SessionError as error:
            return _ENDED + str(error).encode()


class GrpcChannel:
    """A client's stream to the runner at an address; it is opened by the first exchange."""

    def __init__(
        self,
        address: str,
        token: str,
        certificate: str,
        *,
        dial_timeout: float,
        round_timeout: float,
        coding: Coding = EXACT,
    ) -> None:
        """Remember where to dial.

        Parameters
        ----------
        address: `host:port` of the runner.
        token: the secret that the strategy sent to this client.
        certificate: the one that the runner has to show, see `FrameServer.certificate`.
        dial_timeout: seconds to try to reach the runner at first.
        round_timeout: seconds after which a stream ends, whatever happens on it.
        coding: how frames are written, either way.
        """
        self._address = address
        self._token = token
        self._credentials = grpc.ssl_channel_credentials(certificate.encode())
        self._dial_timeout = dial_timeout
        self._round_timeout = round_timeout
        self._coding = coding
        self._connection: _Connection | None = None
        self._connected_before = False
        self._sent_away = False

    def exchange(self, frame: Frame) -> Frame:
        data = encode(frame, self._coding)
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
        if answer.startswith(_ANSWER):
            return decode(answer, self._coding, start=len(_ANSWER))
        kind, told = answer[:1], answer[1:].decode()
        if kind == _LOST:
            raise IterationLost(told)
        self._drop_connection()  # the runner has done so, too
        self._sent_away = True
        raise SessionError(told)

    def _connect(self, seconds: float | None = None) -> "_Connection":
        timeout = seconds or self._round_timeout
        return _Connection(self._address, self._credentials, self._token, timeout)

    def close(self) -> None:
        if self._sent_away:  # or the runner would wait whether a better frame comes
            self._connection, self._sent_away = self._connect(RECONNECT_SECONDS), False
        if self._connection is not None:
            self._connection.leave()
            self._connection = None

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None


class _Connection:
    """One dialled stream."""

    def __init__(self, address: str, credentials: Any, token: str, timeout: float) -> None:
        self._channel = grpc.secure_channel(address, credentials, options=_CLIENT_OPTIONS)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._answers = method(
            iter(self._requests.get, None),
            metadata=[("token", token)],
            timeout=timeout,
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
