"""A client's way to a runner over the network.

It only dials out, and trusts the one certificate that it was told of. Where its connection breaks
it dials again and repeats its last frame; the runner answers a repeated frame with the answer it
gave, so nothing is trained twice.
"""

import socket
import ssl
import time

from huscf_flwr.errors import cause
from huscf_flwr.wire.channel import RECONNECT_SECONDS, IterationLost, SessionError
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frames import Frame, decode, written
from huscf_flwr.wire.links import (
    ANSWER,
    FRAME,
    HEADERS_BYTES,
    LEAVING,
    LOST,
    MAX_FRAME_BYTES,
    NAME,
    TOKEN,
    WELCOME,
    Link,
    host_and_port,
)

_DIAL_SECONDS = 10.0
_AGAIN_SECONDS = 0.1


def trusting(certificate: str) -> ssl.SSLContext:
    """How a client does TLS that trusts this certificate, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=certificate)
    return context


class TlsChannel:
    """A client's connection to the runner at an address; it is opened by the first exchange."""

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
        round_timeout: seconds from the first exchange on, after which there is none any more.
        coding: how frames are written, either way.
        """
        self._address = address
        self._token = token
        self._tls = trusting(certificate)
        self._dial_timeout = dial_timeout
        self._round_timeout = round_timeout
        self._coding = coding
        self._ends: float | None = None
        self._link: Link | None = None
        self._connected_before = False
        self._sent_away = False

    def exchange(self, frame: Frame) -> Frame:
        content = written(frame, self._coding)
        size = sum(len(piece) for piece in content)
        if size > MAX_FRAME_BYTES:
            raise SessionError(
                f"a frame of {size / 2**20:.0f} MiB exceeds the limit of "
                f"{MAX_FRAME_BYTES / 2**20:.0f} MiB: lower batch-size"
            )
        began = time.monotonic()
        self._ends = self._ends or began + self._round_timeout
        patience = RECONNECT_SECONDS if self._connected_before else self._dial_timeout
        failed: float | None = None
        while True:
            try:
                link = self._link = self._link or self._dialled(min(_DIAL_SECONDS, patience))
                link.wait_at_most(max(_AGAIN_SECONDS, self._ends - time.monotonic()))
                link.send(FRAME, content)
                kind, answer = link.receive(MAX_FRAME_BYTES + HEADERS_BYTES)
                break
            except OSError as error:
                self._drop()
                now = time.monotonic()
                if now >= self._ends:
                    raise SessionError(
                        f"the connection to the runner at {self._address} ended after "
                        f"round-timeout={self._round_timeout:g} s"
                    ) from error
                failed = failed or now
                if now > failed + patience:
                    raise SessionError(
                        f"cannot reach the runner at {self._address} within {patience:g} s: "
                        f"{cause(error)}"
                    ) from error
                time.sleep(_AGAIN_SECONDS)
            except BaseException:  # interrupted in the middle of a message
                self._drop()
                raise
        self._connected_before = True
        if kind == ANSWER:
            return decode(answer, self._coding)
        if kind == LOST:
            raise IterationLost(answer.decode())
        self._drop()  # the runner has done so, too
        self._sent_away = True
        raise SessionError(answer.decode())

    def close(self) -> None:
        try:
            if self._sent_away:  # or the runner would wait whether a better frame comes
                self._link, self._sent_away = self._dialled(RECONNECT_SECONDS), False
            if self._link is not None:
                self._link.wait_at_most(RECONNECT_SECONDS)
                self._link.send(LEAVING)
                self._link.receive(0)  # ends with the connection, when the runner knows
        except (OSError, SessionError):  # the runner is gone: there is nobody to tell
            pass
        finally:
            self._drop()

    def _dialled(self, seconds: float) -> Link:
        """A new connection, over which the runner has welcomed this client.

        Raises
        ------
        OSError: there is none.
        SessionError: the token is no good any more.
        """
        plain = socket.create_connection(host_and_port(self._address), timeout=seconds)
        try:
            link = Link(self._tls.wrap_socket(plain, server_hostname=NAME))
        except BaseException:
            plain.close()
            raise
        try:
            link.send(TOKEN, [self._token.encode()])
            kind, said = link.receive(HEADERS_BYTES)
            if kind != WELCOME:
                raise SessionError(said.decode())
            return link
        except BaseException:
            link.close()
            raise

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
