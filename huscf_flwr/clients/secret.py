"""What a device keeps to itself, for all runs: the secret that its draws follow from, and as what
its images have been shown with noise. In files that only its user can read.
"""

import secrets
from pathlib import Path

from huscf_flwr.clients.kept_state import own_folder
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.files import kept

_BYTES = 32


def own_secret() -> bytes:
    """This machine's, drawn when first asked for; the nodes of one user share it.

    Raises
    ------
    UserError: it cannot be kept, or is not what was kept.
    """
    path = own_folder() / "secret"
    secret = _kept(path, secrets.token_bytes(_BYTES))
    if len(secret) != _BYTES:
        raise UserError(f"{path} is no secret of {_BYTES} bytes: remove it to get a new one")
    return secret


def shown_as(image_format: ImageFormat, *, now: bool) -> None:
    """Raise `UserError` if images have been shown with noise in another format.

    Brought to another size they would have other noise, and with another number of classes labels
    would be changed to others: who asked for many could average. With `now`, they are shown.
    """
    path = own_folder() / "shown-as"
    size, channels, classes = image_format.size, image_format.channels, image_format.num_classes
    due = f"{size} pixels, {channels} channels, {classes} classes"
    if not now and not path.exists():
        return
    before = _kept(path, due.encode()).decode(errors="replace")
    if before != due:
        raise UserError(
            f"its images have been shown with noise as {before}, and would be shown once more as "
            f"{due}: who agrees to that removes {path} there"
        )


def _kept(path: Path, content: bytes) -> bytes:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return kept(path, content)
    except OSError as error:
        raise UserError(
            f"its secret cannot be kept in {path}: {cause(error)}; XDG_STATE_HOME may name "
            "another folder for that"
        ) from None
