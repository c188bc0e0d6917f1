"""`huscf compare`: many runs, one table."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError

_DESCRIPTION = """\
Run scenarios with several strategies and seeds, in this process, and write one table of them.

  huscf compare simulations/scenario-3-offline.toml simulations/scenario-6-offline.toml
  huscf compare simulations/scenario-4-offline.toml --strategy huscf,fedgan --seeds 3

The table has mean and standard deviation over the seeds, and the figures that the paper's authors
published beside them where there are any. It is printed, and written to comparison.csv and
comparison.md in a new folder below runs/, beside a folder for each run. --out names that folder:
runs that it has already are not trained again, so that an interrupted comparison goes on.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "compare",
        help="compare scenarios, strategies and seeds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="TOML file with run keys")
    parser.add_argument(
        "--strategy", default="", help="strategies, comma separated; the file's own without"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds for each (1)")
    parser.add_argument("--out", metavar="FOLDER", help="where to; runs/<time>-comparison without")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.logs import set_up_logging
    from simulations.compare import perform, plan_runs, rows_of, write_tables

    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: must be at least 1")
    set_up_logging()
    here = Path(os.getcwd())
    folder = here / (options.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-comparison")
    strategies = [name for name in options.strategy.split(",") if name]
    runs = plan_runs(options.files, strategies, options.seeds, folder)
    perform(runs, str(here))
    print(write_tables(rows_of(runs), folder), end="")
    print(f"\nin {folder}/comparison.csv and .md")
