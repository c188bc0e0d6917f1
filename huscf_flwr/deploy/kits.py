"""Kits: a folder for each machine of a deployment, with its keys and a script that starts it."""

import ipaddress
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.certificates import issue, new_authority, new_device_key

PORT = 9092
"""Where devices reach the gateway, unless told otherwise; the runner is at the next port."""

SUPERLINK = 3
"""The SuperLink, for the server's own machine, is at so many ports after `PORT`; the one before it
is by default that of a device, which may be on the same machine."""

CONNECTION = "kit"
"""What the deployment is called in `flwr run`."""

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"
ADDRESS = "address"
NODES, FLOWER = "nodes", "flower"
"""In the server's kit: the devices' public keys, and the home of Flower's own files."""

_LOCAL = ("localhost", "127.0.0.1")
_LAST_PORT = 65535


def make_kits(folder: Path, server: str, nodes: int, port: int = PORT) -> list[Path]:
    """Make what a deployment needs; where it was made before, what a larger one needs besides.

    Parameters
    ----------
    folder: where the kits go, `server` and `node-1`, `node-2`, ...; made if it is missing.
    server: the server's name or address, as devices reach it.
    nodes: how many devices.
    port: see `PORT`.

    Returns
    -------
    The kits that are new.

    Raises
    ------
    UserError: the name or a number is impossible, the folder cannot be written, or it has kits of
        another server.
    """
    if nodes < 1:
        raise UserError(f"--nodes {nodes}: must be at least 1")
    if not 1 <= port <= _LAST_PORT - SUPERLINK:
        raise UserError(f"--port {port}: must be from 1 to {_LAST_PORT - SUPERLINK}")
    address = f"{_checked(server)}:{port}"
    own = folder / "server"
    try:
        made = [] if own.exists() else [_server_kit(own, server, address)]
        stated = (own / ADDRESS).read_text().strip()
        if stated != address:
            raise UserError(f"{folder}: has kits for the server at {stated}")
        authority = (own / AUTHORITY).read_bytes()
        for number in range(1, nodes + 1):
            name = f"node-{number}"
            if not any((own / NODES).glob(f"{name}.pub*")):
                public = _node_kit(folder / name, name, authority, address)
                write_private(own / NODES, {f"{name}.pub": public})
                made.append(folder / name)
    except OSError as error:
        raise UserError(f"--out {folder}: {cause(error)}") from None
    return made


def _server_kit(folder: Path, server: str, address: str) -> Path:
    authority = new_authority("huscf-flwr deployment")
    own = issue(authority, [server, *_LOCAL])  # the authority's key is not needed any more
    (folder / NODES).mkdir(parents=True, mode=0o700)
    files = {
        AUTHORITY: authority.public,
        CERTIFICATE: own.public,
        KEY: own.key,
        ADDRESS: f"{address}\n".encode(),
        "README.txt": _SERVER_README.encode(),
        "start": _SERVER_START.encode(),
    }
    write_private(folder, files)
    return folder


def _node_kit(folder: Path, name: str, authority: bytes, address: str) -> bytes:
    """Write a device's kit; its public key."""
    key = new_device_key(name)
    folder.mkdir(mode=0o700)
    start = _NODE_START.replace("ADDRESS", shlex.quote(address))
    readme = _NODE_README.replace("NAME", name)
    files = {
        AUTHORITY: authority,
        "key": key.private,
        "README.txt": readme.encode(),
        "start": start.encode(),
    }
    write_private(folder, files)
    return key.public


def write_private(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that only their owner may read."""
    folder.chmod(0o700)
    for name, content in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        if name == "start":
            path.chmod(0o700)


def _checked(server: str) -> str:
    """The server as the host of an address."""
    try:
        if ipaddress.ip_address(server).version == 6:
            raise UserError(f"--server {server}: the server listens on IPv4 only")
        return server
    except ValueError:
        if not re.fullmatch(r"(?!-)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", server):
            raise UserError(f"--server {server}: not a host name or an IP address") from None
        return server


_SERVER_START = """\
#!/bin/sh
# Starts this deployment's server, and says how to start a run. Ctrl-C ends it.
exec huscf serve "$(dirname "$0")" "$@"
"""

_NODE_START = """\
#!/bin/sh
# ./start DATA: trains on DATA, an .npz file or a folder, whenever the server starts a run.
# What follows DATA goes to flower-supernode; NODE_CONFIG may have more keys of this node, such as
# "image-epsilon=2400 label-epsilon=2.0", the protection it insists on. Ctrl-C ends it.
if [ $# -lt 1 ] || [ ! -e "$1" ]; then
    echo "usage: $0 DATA, an .npz file of images and labels or a folder of classes" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
# What Flower remembers, and the app that the server sends, of this device alone.
export FLWR_HOME="$here/flower"
# How often Flower's SuperExec asks for work, in seconds; a second, if nothing is said.
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.1}"
tries=10
trap 'trap "" INT TERM; kill "$node"; wait "$node"; exit 143' INT TERM
while began=$(date +%s); do
    flower-supernode --superlink ADDRESS --root-certificates "$here/ca.pem" \\
        --auth-supernode-private-key "$here/key" \\
        --node-config "data=\\"$data\\" $NODE_CONFIG" "$@" &
    node=$!
    wait "$node" && exit
    # A device that was cut off is let in again when the server has missed it, after a minute.
    [ $(($(date +%s) - began)) -lt 60 ] || tries=10
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 1
    echo "$0: tries again in ten seconds; Ctrl-C ends it" >&2
    sleep 10 &
    node=$!
    wait "$node"
done
"""

_SERVER_README = """\
The server of a deployment of huscf-flwr.

In an environment where huscf-flwr is installed:

    ./start

It listens for the devices on the port in the file `address`, and during a run on the next one, and
says how to start a run. That takes an account on this machine: whoever has one can start runs, and
thereby run code on this machine and on all devices.

server.key proves to the devices that this is their server: keep it here. The public keys in nodes/
say which devices may join: rename one to NAME.pub.out and restart, to shut a device out for good.
flower/ is what Flower remembers.
"""

_NODE_README = """\
The device NAME of a deployment of huscf-flwr.

In an environment where huscf-flwr is installed:

    ./start /path/to/data.npz

It dials out only. The file `key` is this device: whoever has it can take part in its place. The
device runs the code that the server sends. Images and labels are not sent as such, but whoever
runs the server can rebuild them from what is, unless noise keeps it from that. To take part only
in runs in which noise lets an image and a label tell so little (see docs/privacy.md), or less:

    NODE_CONFIG="image-epsilon=2400 label-epsilon=2.0" ./start /path/to/data.npz
"""
