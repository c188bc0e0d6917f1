"""A TLS connection that carries messages: their kind, a letter, and bytes; either way.

Its reads and writes block: an exchange is over sooner, and for less work, if the thread that needs
what comes waits for it itself than if others hand it on.
"""

import socket
import ssl
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

from huscf_flwr.wire.frames import Buffer

NAME = "huscf-runner"
"""What a runner's certificate is for, whatever address it is dialled at."""

MAX_FRAME_BYTES = 256 * 2**20
"""The largest frame that either end takes of whatever net; memory for larger ones is not even
allocated."""

HEADERS_BYTES = 2**16
"""Of a frame, besides its tensors, at most."""

TOKEN, FRAME, LEAVING = b"T", b"F", b"G"
"""What clients send: who they are, once and first; a frame; that no more come."""

WELCOME, ANSWER, LOST, ENDED = b"W", b"A", b"L", b"E"
"""What they are sent: that their token is good; a frame; that the iteration went on without them;
that the session is over. The last two come with why."""

_HEADER = struct.Struct("!cI")  # kind, length
_PIECE = 2**16

# Who is silent for five seconds is asked whether it is there, and the connection ends where its
# system has not answered within four, or has had no room for what was sent for nine. A slow link
# does not matter, nor does a process that computes: it is sent nothing then.
_IDLE_S, _EVERY_S, _TIMES = 5, 2, 2
_OPTIONS = [
    ("TCP_NODELAY", 1),
    ("TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", _IDLE_S),
    ("TCP_KEEPINTVL", _EVERY_S),
    ("TCP_KEEPCNT", _TIMES),
    ("TCP_USER_TIMEOUT", 1000 * (_IDLE_S + _EVERY_S * _TIMES)),
]


class TooLargeError(ValueError):
    """A message is longer than any that is due; its `length` bytes were not read."""

    def __init__(self, length: int, largest: int) -> None:
        super().__init__(f"{length} bytes, of {largest} at most")
        self.length = length


class Link:
    """One end of a connection. All that it raises of connections that are over is `OSError`."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def wait_at_most(self, seconds: float | None) -> None:
        """For the other end, in any single step of what follows; None: as long as it is there."""
        self._connection.settimeout(seconds)

    def handshake(self) -> None:
        self._connection.do_handshake()

    def send(self, kind: bytes, content: Sequence[Buffer] = ()) -> None:
        """A message, whose content is these pieces one after the other."""
        length = sum(len(piece) for piece in content)
        self._connection.sendall(b"".join([_HEADER.pack(kind, length), *content]))

    def receive(self, largest: int) -> tuple[bytes, bytearray]:
        """Wait for a message, of so many bytes at most: its kind and content.

        Raises
        ------
        TooLargeError: it is longer.
        """
        kind, length = _HEADER.unpack(self._read(_HEADER.size))
        if length > largest:
            raise TooLargeError(length, largest)
        return kind, self._read(length)

    def skip(self, length: int) -> None:
        """Throw away so many bytes, piece by piece."""
        for start in range(0, length, _PIECE):
            self._read(min(_PIECE, length - start))

    def _read(self, length: int) -> bytearray:
        found = bytearray(length)
        missing = memoryview(found)
        while missing:
            count = self._connection.recv_into(missing)
            if not count:
                raise ConnectionResetError("the other end has closed the connection")
            missing = missing[count:]
        return found

    def break_off(self) -> None:
        """From any thread: whoever waits here has an `OSError`."""
        with suppress(OSError):  # not the method of SSLSocket, which is for its own thread
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Of `host:port`, or `[host]:port` where the host has colons."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
