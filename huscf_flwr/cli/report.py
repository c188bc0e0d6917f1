"""`huscf report`: the page that shows a run."""

import argparse
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError

_DESCRIPTION = """\
Make the page report.html again, from the files in a run's folder.

  huscf report
  huscf report runs/20260101-120000-huscf
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "report",
        help="make the page that shows a run",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", default="runs/latest", metavar="RUN",
                        help="a run's folder (runs/latest)")  # fmt: skip
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.report.page import write_page

    folder = Path(options.folder).resolve()
    try:
        path = write_page(folder)
    except UserError:
        raise
    except Exception as error:  # whatever is in these files, the answer is one line
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: the page cannot be made: {what}") from None
    print(path)
