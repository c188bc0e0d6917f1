"""`huscf compare`: many runs, one table."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError

_DESCRIPTION = """\
Run scenarios with several methods and seeds, and make one table and one page of them.

  huscf compare simulations/rivals.toml --methods simulations/rivals-methods.toml --jobs 2
  huscf compare simulations/scenario-3-offline.toml simulations/scenario-6-offline.toml
  huscf compare simulations/scenario-4-offline.toml --strategy huscf,fedgan --seeds 3 width=32
  huscf compare simulations/scenario-3.toml download=true device=cuda
  huscf compare simulations/attribution-default.toml --methods simulations/attribution.toml

What is compared are strategies, by --strategy, or methods of a TOML file: a table for each, named
as it is to be called, of the run keys that make it,

  ["HuSCF, server blocks shared"]
  server-blocks = "shared"

which go before those of the scenario. one-client-per-domain = true makes it train where all images
of a domain are in one place, for as many iterations as the domain's clients have together.

A key=value sets that key in every scenario, in place of what its file says, but not in place of
what a method says; `huscf train --help` lists the keys.

The table has means over the seeds, of what the generator of a client's cluster gets on average
over the domain's clients, with 95% intervals (Student's t); and beside runs of the authors'
scenarios, with the keys that their files have, the figures that they published. It is printed, and
written after every run, in a new folder below runs/, beside a folder for each run:
comparison.html is the page, comparison.csv, .md and .tex the table, and differences.csv has for
each two methods how far they are apart on average over the seeds that both have.

Runs are trained one after the other in this process; with --jobs in so many processes, which share
the cores; or with --ray on a Ray cluster, each as a task with so many CPUs and GPUs: its machines
need this package, and this folder and the data at the same paths. What a run in another process or
elsewhere logs is in <run>.log. A run that fails stops no other: it is in the table with its
reason, and the exit code is 1.

--out names that folder: runs that it has already are not trained again, so that an interrupted
comparison goes on. A run that was interrupted itself begins anew; what it left is kept as
<run>.interrupted-1.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "compare",
        help="compare scenarios, methods and seeds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE|key=value",
        help="TOML file with run keys, or a key for all of them",
    )
    parser.add_argument(
        "--strategy",
        default="",
        help="strategies, comma separated, as the key strategy names them; the file's own without",
    )
    parser.add_argument("--methods", metavar="FILE", help="TOML file of methods, in their place")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds for each (1)")
    parser.add_argument("--out", metavar="FOLDER", help="where to; runs/<time>-comparison without")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, on this machine (1)")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster that trains them")
    parser.add_argument("--run-cpus", type=float, default=1.0, help="of a run, with --ray (1)")
    parser.add_argument("--run-gpus", type=float, default=0.0, help="of a run, with --ray (0)")
    parser.set_defaults(run=_run, listed="inputs")


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.system.logs import set_up_logging
    from simulations.compare import Methods, plan_runs, read_methods
    from simulations.perform import perform
    from simulations.workers import Processes, RayCluster, Workers, in_this_process

    for name in ("seeds", "jobs"):
        if (count := getattr(options, name)) < 1:
            raise UserError(f"--{name} {count}: must be at least 1")
    if options.ray and options.jobs > 1:
        raise UserError("--jobs and --ray: give one of them")
    if options.run_cpus <= 0 or options.run_gpus < 0:
        raise UserError(
            f"--run-cpus {options.run_cpus:g} --run-gpus {options.run_gpus:g}: too few"
        )
    set_up_logging()
    pairs = [text for text in options.inputs if "=" in text and not Path(text).is_file()]
    files = [text for text in options.inputs if text not in pairs]
    if not files:
        raise UserError(f"{' '.join(pairs)}: no TOML file of a scenario is named beside")
    here = Path(os.getcwd())
    folder = here / (options.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-comparison")
    names = [name.strip() for name in options.strategy.split(",") if name.strip()]
    if options.methods and names:
        raise UserError("--methods and --strategy: give one of them")
    methods: Methods = {name: {"strategy": name} for name in names}
    if options.methods:
        methods = read_methods(options.methods)
    runs = plan_runs(
        files,
        pairs,
        methods=methods,
        seeds=options.seeds,
        folder=folder,
        base_dir=str(here),
    )
    workers: Workers = in_this_process if options.jobs == 1 else Processes(options.jobs)
    if options.ray:
        workers = RayCluster(options.ray, options.run_cpus, options.run_gpus)
    text, failures = perform(runs, str(here), folder, workers, at_a_time=options.jobs)
    print(text, end="")
    print("\nas comparison.csv, .md and .tex, with differences.csv, beside the page:")
    print(folder / "comparison.html")
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed: see above")
