"""`huscf audit`: what the server of a run, and others, could see of its clients' data."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Attack a finished run of a simulation, as its server could have: rebuild the images and labels of a
batch of each client from what it sends with the last round's parameters, and find out what the
nets tell of the images that they were trained on. The data is dealt again, here; nothing is sent
anywhere. What was found goes into the run's summary.json, report.html and audit/, which has images
of clients then, real and rebuilt.

  huscf audit
  huscf audit runs/20260101-120000-huscf

Images are plain (nobody would see a difference), recognisable (far more alike than another image
of the class), blurred, or hidden (no more alike than the mean image of the class).
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "audit",
        help="attack a run: what leaks of its clients' data",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", nargs="?", default="runs/latest", metavar="RUN",
        help="a run's folder (runs/latest)")  # fmt: skip
    add("--seed", type=int, default=0, help="of all that is random in the attacks (0)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from huscf_flwr.errors import UserError
    from huscf_flwr.report.audit_tables import lines
    from huscf_flwr.system.logs import set_up_logging
    from simulations.audit import Progress, audit_run

    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be at least 0")
    set_up_logging()
    folder = Path(options.folder).resolve()
    with tqdm(unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:

        class Bar(Progress):
            def total(self, steps: int) -> None:
                bar.reset(total=steps)

            def step(self) -> None:
                bar.update()

        found = audit_run(folder, os.getcwd(), seed=options.seed, progress=Bar())
    print("\n".join(lines(found)))
    print(f"\n{folder / 'report.html'}")
