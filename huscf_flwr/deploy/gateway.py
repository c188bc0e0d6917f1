"""The gateway: what the network sees of Flower's SuperLink.

A SuperLink serves everything on one port: what devices need, and what starts runs, without asking
who is there. So it listens to its own machine only, and the gateway passes on to it what devices
need, from devices whose key is known, and nothing else.
"""

import base64
import binascii
import datetime
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

log = logging.getLogger(__name__)

PREFIX = "/v1/fleet/"
"""Of the paths of all that devices need."""

_PUBLIC_KEY, _SIGNATURE, _TIMESTAMP = "flwr-public-key", "flwr-signature", "flwr-timestamp"
_CALL = re.compile("[a-z-]+")
_SECONDS = 305.0  # that a signature is good for, as Flower has it
_MAX_BYTES = 512 * 2**20  # of a request
_DROPPED = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Refused(Exception):
    """This request is not passed on; the message says why."""


def gateway(superlink: httpx.AsyncClient, keys: Iterable[ec.EllipticCurvePublicKey]) -> Starlette:
    """The application to serve.

    Parameters
    ----------
    superlink: a client whose base URL is the SuperLink's.
    keys: the devices' public keys.
    """
    known = {_as_shown(key): key for key in keys}

    async def pass_on(request: Request) -> Response:
        if not _CALL.fullmatch(request.path_params["call"]):
            return PlainTextResponse("no such call", status_code=404)
        try:
            check_signature(request, known)
        except Refused as refused:
            log.warning("refused a request for %s: %s", request.url.path, refused)
            return PlainTextResponse(str(refused), status_code=401)
        path = PREFIX + request.path_params["call"]
        headers = [(n, v) for n, v in request.headers.items() if n not in _DROPPED]
        sent = superlink.build_request("POST", path, headers=headers, content=_limited(request))
        try:
            answer = await superlink.send(sent, stream=True)
        except Refused as refused:
            return PlainTextResponse(str(refused), status_code=413)
        except httpx.HTTPError as error:
            log.warning("the SuperLink does not answer: %s", error)
            return PlainTextResponse("the SuperLink does not answer", status_code=502)
        kept = {n: v for n, v in answer.headers.items() if n not in _DROPPED}
        return StreamingResponse(_body(answer), answer.status_code, kept)

    return Starlette(routes=[Route(PREFIX + "{call}", pass_on, methods=["POST"])])


def check_signature(request: Request, keys: Mapping[bytes, ec.EllipticCurvePublicKey]) -> None:
    """Raise `Refused` unless a known device has signed this, not long ago."""
    try:
        shown = base64.b64decode(request.headers[_PUBLIC_KEY], validate=True).strip()
        signature = base64.b64decode(request.headers[_SIGNATURE], validate=True)
        timestamp = request.headers[_TIMESTAMP]
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(timestamp)
    except (KeyError, ValueError, TypeError, binascii.Error):
        raise Refused("no signature of a device") from None
    if shown not in keys:
        raise Refused("no device of this deployment has this key")
    if abs(age.total_seconds()) > _SECONDS:
        raise Refused("signed too long ago, or the device's clock is wrong")
    try:
        keys[shown].verify(signature, timestamp.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("not signed with this key") from None


def _as_shown(key: ec.EllipticCurvePublicKey) -> bytes:
    """As a device shows it in its calls."""
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(pem, spki).strip()


async def _limited(request: Request) -> AsyncIterator[bytes]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > _MAX_BYTES:
            raise Refused(f"more than {_MAX_BYTES} bytes")
        yield chunk


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
