"""`huscf plan`: the best cuts for a fleet, without training."""

import argparse
import json
import os
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.wire.codings import CODINGS

_DESCRIPTION = """\
Find the cuts with which one training iteration of a fleet takes the least time.

  huscf plan --devices paper --clients 80 --image-size 28 --width 64 --compare
  huscf plan --devices fleet.toml --plot timeline.png
  huscf plan --devices fleet.toml --net my_nets:mine --json

A device file has a [server] and a [[profiles]] table for each kind of client:

  [server]
  flops-per-s = 672e9        # floating-point operations per second; a multiply-add is two
  link-bytes-per-s = 1000e6

  [[profiles]]
  name = "phone"
  flops-per-s = 16e9
  link-bytes-per-s = 5e6
  clients = 30               # its share of the clients; 1 unless given
  # Among which Federated Split GANs share a user's discriminator; it is one device unless given:
  devices = [{capacity = 500_000, time-factor = 1.0}, {capacity = 2_000_000, time-factor = 1.5}]

A device's `capacity` is in parameters, and its `time-factor` says how many times as long it
computes as at the profile's speed.

`paper` is the file of the paper's seven devices. The same names are what the run key `devices`
takes; there, `measured` has every device measure itself.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    run = RunConfig()
    parser = commands.add_parser(
        "plan",
        help="find the best cuts for a fleet",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--devices", required=True, metavar="FILE|paper", help="what the devices can do")
    add("--clients", type=int, metavar="N", help="how many; as many as the file says without")
    add(
        "--cohort",
        type=int,
        metavar="N",
        help="how many of them share an iteration, mixed like the fleet; all without",
    )
    add("--net", default=run.net, help=f"registered net, or module:name ({run.net})")
    add("--image-size", type=int, default=28, help="in pixels (28)")
    add("--channels", type=int, default=1, help="of the images (1)")
    add("--num-classes", type=int, default=10, help="labels (10)")
    add("--width", type=int, default=64, help="of the narrowest convolution (64, the paper's)")
    add("--batch-size", type=int, default=run.batch_size, help=f"per client ({run.batch_size})")
    add(
        "--search",
        default="auto",
        help="exhaustive: the fastest plan, for few kinds of devices; genetic: for any number; "
        "auto (the default) picks",
    )
    add("--seed", type=int, default=run.seed, help=f"of the genetic search ({run.seed})")
    add(
        "--wire",
        choices=tuple(CODINGS),
        default=run.wire,
        help=f"how activations and gradients are sent, see the run key wire ({run.wire})",
    )
    add("--compare", action="store_true", help="say what simpler plans would take")
    add("--plot", metavar="FILE", help="draw a timeline of one iteration (.png, .svg or .pdf)")
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.nets import NetSpec, net_shapes
    from huscf_flwr.planning.devices import fleet_of, read_devices
    from huscf_flwr.planning.plan import alternatives, make_plan
    from huscf_flwr.planning.timeline import draw_timeline

    if options.cohort is not None and options.cohort < 1:
        raise UserError(f"--cohort {options.cohort}: must be at least 1")
    if options.batch_size < 2 or options.seed < 0:
        raise UserError(
            f"--batch-size {options.batch_size} --seed {options.seed}: must be at least 2 and 0"
        )
    spec = NetSpec(
        net=options.net,
        image_size=options.image_size,
        channels=options.channels,
        num_classes=options.num_classes,
        width=options.width,
    )
    fleet = fleet_of(read_devices(options.devices, os.getcwd()), options.clients)
    plan = make_plan(
        spec,
        options.batch_size,
        fleet,
        cohort=options.cohort,
        search=options.search,
        seed=options.seed,
        coding=CODINGS[options.wire],
    )
    others = alternatives(plan, net_shapes(spec)) if options.compare else {}
    if options.json:
        extra = {"alternatives": others} if others else {}
        print(json.dumps({**plan.as_dict(), **extra}, indent=2))
    else:
        print("\n".join(plan.lines()))
        print(f"\none iteration of {plan.cohort:.0f} clients: {plan.latency_s:.3f} s")
        for name, seconds in others.items():
            print(f"  {name}: {seconds:.3f} s, {seconds / plan.latency_s:.1f} times as long")
        print(f"({plan.search} search, {plan.seconds:.2f} s)")
    if options.plot:
        try:
            draw_timeline(plan, options.plot)
        except (OSError, ValueError) as error:
            raise UserError(f"--plot {options.plot}: {error}") from None
