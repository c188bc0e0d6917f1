"""`huscf serve`: the server of a deployment."""

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Run the server of a deployment, from the kit that huscf provision made for it, as the kit's start
script does. It says how to start a run. Ctrl-C ends it.

  huscf serve kits/server
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "serve",
        help="run the server of a deployment",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kit", metavar="KIT", help="the server's kit")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.deploy.serve import serve
    from huscf_flwr.system.logs import set_up_logging

    set_up_logging()
    serve(Path(options.kit))
