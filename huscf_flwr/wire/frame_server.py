"""Where clients' frames come in over the network, a connection for each client and round.

Clients only dial in, over TLS. Who has no token is sent away before anything else is read of what
it sends. A token has one connection: a new one ends the one before.
"""

import logging
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.certificates import Certificate, self_signed
from huscf_flwr.system.files import allow_many_files
from huscf_flwr.wire.channel import Desk, IterationLost, Reception, SessionError
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frames import Buffer, FrameError, decode, written
from huscf_flwr.wire.links import (
    ANSWER,
    ENDED,
    HEADERS_BYTES,
    LEAVING,
    LOST,
    MAX_FRAME_BYTES,
    NAME,
    TOKEN,
    WELCOME,
    Link,
    TooLargeError,
    host_and_port,
)

log = logging.getLogger(__name__)

_STRANGERS = 256
"""Connections without a token, at most: then the oldest has to go, once it has had time enough to
say who it is, and more wait to be let in."""

_TIME_ENOUGH_SECONDS = 1.0
_STRANGER_SECONDS = 10.0
_LINGER_SECONDS = 60.0
"""For so long a connection may stay of which nothing can come any more: its last answer may be on
a slow way."""

_LONGEST_TOKEN = 4096
_LOOK_SECONDS = 1.0


class FrameServer:
    """Takes clients' frames from a port to the desks of a reception, a thread for each client."""

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
        self._largest = largest_frame + HEADERS_BYTES
        self._strangers: dict[Link, float] = {}  # the oldest first, with when it came
        self._links: dict[str, tuple[Link, Desk]] = {}  # by token
        self._changed = threading.Condition()
        self._closed = False
        allow_many_files()  # a connection is one
        own = self_signed(NAME)
        self.certificate: str = own.public.decode()
        """What clients have to know in order to trust this server."""
        self._tls = _showing(own)
        host, port = host_and_port(bind)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listening = socket.create_server(
                (host, port),
                family=family,
                backlog=1024,
                dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
            )
        except (OSError, OverflowError) as error:
            raise UserError(
                f'runner-bind="{bind}" cannot be bound: the port is in use or the host is not '
                "this machine's; port 0 takes a free port"
            ) from error
        self._listening.settimeout(_LOOK_SECONDS)
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="runner-port", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop listening and break off open connections."""
        with self._changed:
            self._closed = True
            links = [*self._strangers, *(link for link, _ in self._links.values())]
            self._changed.notify_all()
        with suppress(OSError):  # wakes the thread, where the system lets it
            self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()
        for link in links:
            link.break_off()

    def _accept(self) -> None:
        looked = time.monotonic()
        while not self._closed:
            if time.monotonic() > looked + _LOOK_SECONDS:
                self._end_what_is_over()
                looked = time.monotonic()
            self._make_room()
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            except OSError:  # as many files open as there may be, for now
                time.sleep(0.05)
                continue
            try:
                self._let_in(connection)
            except OSError:  # gone already
                connection.close()

    def _let_in(self, connection: socket.socket) -> None:
        connection.settimeout(_STRANGER_SECONDS)
        link = Link(
            self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        )
        with self._changed:
            self._strangers[link] = time.monotonic()
        try:
            threading.Thread(
                target=self._run, args=(link,), name="runner-link", daemon=True
            ).start()
        except RuntimeError:  # no thread to be had
            self._forget(link)

    def _make_room(self) -> None:
        """Wait until one more may come who has not said who it is."""
        with self._changed:
            while len(self._strangers) >= _STRANGERS and not self._closed:
                oldest, came = next(iter(self._strangers.items()))
                left = came + _TIME_ENOUGH_SECONDS - time.monotonic()
                if left <= 0:
                    del self._strangers[oldest]
                    oldest.break_off()
                else:
                    self._changed.wait(left)

    def _end_what_is_over(self) -> None:
        """Break off connections of which nothing has come since their session ended."""
        before = time.monotonic() - _LINGER_SECONDS
        with self._changed:
            for link, desk in self._links.values():
                if (ended := desk.ended_at) is not None and ended < before:
                    link.break_off()

    def _run(self, link: Link) -> None:
        try:
            if (token := _shown(link)) is not None:
                self._serve(link, token)
        except OSError:  # the connection is over
            pass
        finally:
            self._forget(link)

    def _forget(self, link: Link) -> None:
        with self._changed:
            self._strangers.pop(link, None)
            self._changed.notify_all()
        link.close()

    def _serve(self, link: Link, token: str) -> None:
        try:
            desk = self._reception.join(token)
        except SessionError as error:
            link.send(ENDED, [str(error).encode()])
            return
        self._take_over(token, link, desk)
        try:
            link.send(WELCOME)
            self._answer_all(desk, link)
        finally:  # a connection that ends without a goodbye may be dialled again
            with self._changed:
                if token in self._links and self._links[token][0] is link:
                    del self._links[token]
            desk.disconnected()

    def _take_over(self, token: str, link: Link, desk: Desk) -> None:
        """Let this connection be the only one with its token."""
        with self._changed:
            self._strangers.pop(link, None)
            self._changed.notify_all()
            before = self._links.get(token)
            self._links[token] = link, desk
            closed = self._closed
        link.wait_at_most(None)
        if before is not None:
            before[0].break_off()
        if closed:
            link.break_off()

    def _answer_all(self, desk: Desk, link: Link) -> None:
        kind = ANSWER
        while kind != ENDED:
            try:
                sent, data = link.receive(self._largest)
            except TooLargeError as error:
                link.skip(error.length)  # or what it is told would not arrive
                kind, content = _refused(desk, f"sent too large a frame ({error})")
            else:
                if sent == LEAVING:
                    desk.leave("closed its channel")
                    return
                kind, content = self._answer(desk, data)
            link.send(kind, content)

    def _answer(self, desk: Desk, data: bytearray) -> tuple[bytes, Sequence[Buffer]]:
        try:
            answer = desk.exchange_frame(decode(data, self._coding))
            return ANSWER, written(answer, self._coding)
        except IterationLost as lost:
            return LOST, [str(lost).encode()]
        except FrameError as error:
            return _refused(desk, f"sent an invalid frame ({error})")
        except SessionError as error:
            return ENDED, [str(error).encode()]
        except Exception as error:  # of a half of one's own, say
            log.exception("a frame cannot be answered")
            return _refused(desk, f"cannot be answered: {type(error).__name__}: {cause(error)}")


def _shown(link: Link) -> str | None:
    """The token that is shown on a new connection; None if that is not what it is."""
    link.handshake()
    try:
        kind, said = link.receive(_LONGEST_TOKEN)
        return said.decode() if kind == TOKEN else None
    except ValueError:
        return None


def _showing(own: Certificate) -> ssl.SSLContext:
    """How a server does TLS that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a session is not gone on with over another connection
    with tempfile.TemporaryDirectory() as folder:  # its user's alone; OpenSSL wants a file
        path = Path(folder) / "own.pem"
        path.write_bytes(own.key + own.public)
        context.load_cert_chain(path)
    return context


def _refused(desk: Desk, reason: str) -> tuple[bytes, Sequence[Buffer]]:
    return ENDED, [desk.refuse(reason).encode()]
