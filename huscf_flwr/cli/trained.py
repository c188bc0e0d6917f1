"""The generator that a command works with: of a run's last round, or of a checkpoint."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from huscf_flwr.errors import UserError

if TYPE_CHECKING:
    from huscf_flwr.nets.generator import Generator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `load` needs."""
    parser.add_argument(
        "file",
        metavar="GENERATOR",
        help="generator-cluster-*.safetensors, or checkpoints/round-*.safetensors",
    )
    parser.add_argument("--cluster", type=int, metavar="N", help="of which, in a checkpoint")
    parser.add_argument("--net", default="", metavar="module:name", help="its net, if your own")


def load(options: argparse.Namespace) -> "Generator":
    """The generator that the options name.

    Raises
    ------
    UserError: see `load_generator` and `generator_at`.
    """
    from huscf_flwr.nets.generator import load_generator
    from huscf_flwr.report.checkpoint import generator_at

    file = Path(options.file)
    if re.fullmatch(r"round-\d+\.safetensors", file.name):
        return generator_at(file, options.cluster, options.net)
    if options.cluster is not None:
        raise UserError(f"--cluster {options.cluster}: {file} is no checkpoint, which has several")
    return load_generator(file, options.net)
