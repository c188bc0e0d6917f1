"""The command `huscf`: one module per subcommand, each with its help, options and action."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

import argparse
import os
import signal
import sys
from importlib.metadata import version
from types import FrameType

from huscf_flwr.cli import (
    audit,
    compare,
    data,
    evaluate,
    generate,
    plan,
    provision,
    report,
    runner,
    serve,
    train,
)
from huscf_flwr.errors import UserError
from huscf_flwr.system.own_modules import look_in

_COMMANDS = (
    train,
    compare,
    data,
    report,
    audit,
    plan,
    generate,
    evaluate,
    provision,
    serve,
    runner,
)


class _Version(argparse.Action):
    """Asks for the version when it is asked for: the code may run where it is not installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"huscf {version('huscf-flwr')}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 1 after a message that says what is wrong."""
    parser = argparse.ArgumentParser(prog="huscf", description=_DESCRIPTION)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_command(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    options = _parse(parser, arguments)
    cpu.settle_memory()
    look_in(os.getcwd())  # where own nets and strategies are
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        options.run(options)
    except UserError as error:
        print(f"huscf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("huscf: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: what was trained is kept, and it is said how to go on."""
    raise KeyboardInterrupt


def _parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parse, with a subcommand's options and the items of its list, `listed`, in any order.

    argparse alone fills a list with what stands together and rejects what follows an option.
    """
    options, left = parser.parse_known_args(arguments)
    listed = getattr(options, "listed", None)
    unknown = [text for text in left if listed is None or text.startswith("-")]
    if unknown:
        hint = "" if listed is None else " (a key of a run is set by key=value)"
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if listed is not None:
        setattr(options, listed, [*getattr(options, listed), *left])
    return options


_DESCRIPTION = (
    "Train conditional GANs across unequal devices, in this process; plan their cuts; score them; "
    "attack them; deploy to real devices."
)
