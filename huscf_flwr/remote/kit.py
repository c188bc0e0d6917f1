"""What runners and the strategy know each other by: a certificate, its key and a secret."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from huscf_flwr.deploy.kits import write_private
from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.certificates import Certificate, self_signed

NAME = "huscf-runner-control"
"""What the certificate is for, whatever address a runner has."""

CERTIFICATE, KEY, SECRET = "runner.pem", "runner.key", "secret"


@dataclass(frozen=True)
class RunnerKit:
    """The files of a kit.

    Attributes
    ----------
    folder: where they are.
    certificate: what a runner shows, as PEM.
    secret: what a strategy shows.
    """

    folder: Path
    certificate: bytes
    secret: str

    def own(self) -> Certificate:
        """What a runner proves itself with; raises `UserError` where the key is not there."""
        return Certificate(self.certificate, _read(self.folder / KEY))


def make_runner_kit(folder: Path) -> None:
    """Make one; raises `UserError` if the folder is there already or cannot be written."""
    own = self_signed(NAME)
    try:
        folder.mkdir(parents=True, mode=0o700)
        write_private(
            folder,
            {
                CERTIFICATE: own.public,
                KEY: own.key,
                SECRET: f"{secrets.token_urlsafe(32)}\n".encode(),
                "README.txt": _README.encode(),
            },
        )
    except FileExistsError:
        raise UserError(f"{folder}: is there already; remove it to make another") from None
    except OSError as error:
        raise UserError(f"{folder}: {cause(error)}") from None


def read_runner_kit(folder: Path) -> RunnerKit:
    """Read what both sides have; raises `UserError` where a file is missing."""
    secret = _read(folder / SECRET).decode(errors="replace").strip()
    if not secret.isascii() or not secret.isprintable() or not secret:
        raise UserError(f"{folder / SECRET}: must be one line of printable ASCII")
    return RunnerKit(folder, _read(folder / CERTIFICATE), secret)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"{file}: {cause(error)}; huscf runner --new FOLDER makes a runners' kit"
        ) from None


_README = """\
The kit of the runners of huscf-flwr.

On each runner's machine, in an environment where huscf-flwr is installed, with the address at
which the server reaches it, and the one at which clients do:

    huscf runner KIT --control 10.0.0.5:9100 --clients 10.0.0.5:9101

The machine where runs are started needs runner.pem and secret, and not runner.key. There, runs say
with the keys runners and runner-kit where runners and these files are.

runner.key proves to the server that this is its runner, secret proves to a runner that this is its
server: whoever has them can be either, and decides what runners compute.
"""
