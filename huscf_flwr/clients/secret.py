"""The secret that what a device draws follows from: in a file that only its user can read."""

import os
import secrets
from pathlib import Path

from huscf_flwr.clients.kept_state import own_folder
from huscf_flwr.errors import UserError, cause

_BYTES = 32


def own_secret() -> bytes:
    """This machine's, drawn when first asked for; the nodes of one user share it.

    Raises
    ------
    UserError: it cannot be kept, or is not what was kept.
    """
    path = own_folder() / "secret"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        secret = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"its secret cannot be kept in {path}: {cause(error)}; XDG_STATE_HOME may name "
            "another folder for that"
        ) from None
    if len(secret) != _BYTES:
        raise UserError(f"{path} is no secret of {_BYTES} bytes: remove it to get a new one")
    return secret


def _create(path: Path) -> None:
    """Write it whole or not at all; where another node is first, the secret is that one's."""
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
