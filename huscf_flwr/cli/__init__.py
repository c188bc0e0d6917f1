"""The command `huscf`: one module per subcommand, each with its help, options and action."""

from huscf_flwr import cpu  # isort: skip  (before torch)

import argparse
import os
import sys

from huscf_flwr.cli import compare, evaluate, generate, plan, report, train
from huscf_flwr.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 1 after a message that says what is wrong."""
    parser = argparse.ArgumentParser(prog="huscf", description=_DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (train, compare, report, plan, generate, evaluate):
        module.add_command(commands)
    options = parser.parse_args(arguments)
    cpu.keep_freed_memory()
    sys.path.append(os.getcwd())  # where own nets and strategies are
    try:
        options.run(options)
    except UserError as error:
        print(f"huscf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("huscf: interrupted", file=sys.stderr)
        return 130
    return 0


_DESCRIPTION = (
    "Train conditional GANs across unequal devices, in this process; plan their cuts; score them."
)
