"""`huscf provision`: what each machine of a deployment needs."""

import argparse
from pathlib import Path
from typing import Any

from huscf_flwr.deploy.kits import PORT, make_kits

_DESCRIPTION = """\
Make a kit for the server and one for every device: keys, certificates, a script that starts it.

  huscf provision --server hospitals.example.org --nodes 4
  kits/server/start                      # on the server, where the kit was carried to
  kits/node-1/start /path/to/data.npz    # on a device
  ... and on the server the line that its start script prints, to start a run

Devices must reach the server's ports 9092 and 9093, or what --port says and the next one. Kits
hold secrets: carry each to its own machine in a safe way. Where kits of this server were made
before, those that are missing are added; start it anew afterwards.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "provision",
        help="make what each machine of a deployment needs",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--server", required=True, metavar="HOST", help="its name or address, as devices reach it")
    add("--nodes", required=True, type=int, metavar="N", help="how many devices")
    add("--port", type=int, default=PORT, help=f"where devices reach the server ({PORT})")
    add("--out", default="kits", metavar="FOLDER", help="where the kits go (kits)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    folder = Path(options.out).resolve()
    made = make_kits(folder, options.server, options.nodes, options.port)
    for kit in made:
        print(kit)
    if not made:
        print(f"{folder} has these kits already")
