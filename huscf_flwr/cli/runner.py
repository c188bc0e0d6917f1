"""`huscf runner`: a runner as a process of its own."""

import argparse
import logging
import threading
from pathlib import Path
from typing import Any

from huscf_flwr.keys import check_address, check_bind

log = logging.getLogger("huscf_flwr.runner")

_DESCRIPTION = """\
Compute the server's part of training on this machine, for a strategy on another one; several
runners share the clients. A kit has what runners and strategy know each other by:

  huscf runner --new kits/runners
  huscf runner kits/runners --control 10.0.0.5:9100 --clients 10.0.0.5:9101

Runs find it by runners=10.0.0.5:9100 and runner-kit=kits/runners; where they are started, the key
in the kit is not needed. The server must reach the first port, and clients the second. Where there
are several runners, they also reach each other, at any port of the first address; that must be on
a network of their own, as what they exchange is not encrypted. Ctrl-C ends it.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "runner",
        help="compute the server's part on this machine",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("kit", metavar="KIT", help="the runners' kit, a folder")
    add("--new", action="store_true", help="make the kit, and end")
    add("--control", default="", metavar="HOST:PORT", help="where the server reaches it")
    add("--clients", default="", metavar="HOST:PORT", help="where it listens to clients")
    add("--address", default="", metavar="HOST:PORT", help="what clients dial (as --clients)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where torch computes")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.remote.control import ControlServer
    from huscf_flwr.remote.kit import make_runner_kit, read_runner_kit
    from huscf_flwr.remote.station import Station
    from huscf_flwr.system.cpu import torch_device
    from huscf_flwr.system.logs import set_up_logging

    kit = Path(options.kit)
    if options.new:
        make_runner_kit(kit)
        print(kit.resolve())
        return
    set_up_logging()
    check_address("--control", options.control)
    check_bind("--clients", options.clients, "--address", options.address)
    device = torch_device(options.device)
    server = ControlServer(
        read_runner_kit(kit),
        options.control,
        lambda: Station(options.clients, options.address, device),
    )
    host = options.control.rpartition(":")[0]
    log.info("a runner on %s, for the server at %s:%d", device, host, server.port)
    try:
        threading.Event().wait()
    finally:
        server.close()
