"""`huscf train`: a run in this process, with a progress bar."""

import argparse
import json
import logging
import os
import shlex
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huscf_flwr.config import RunConfig
from huscf_flwr.keys import read_settings

if TYPE_CHECKING:
    from simulations.engine import Engine

log = logging.getLogger("huscf_flwr.train")

_DESCRIPTION = """\
Train in this process: no Ray, no network; the same strategies and clients as `flwr run`.

Keys may be set in a TOML file (--config) and on the command line, which wins:

  huscf train
  huscf train num-clients=16 domains=digits num-server-rounds=20
  huscf train --config runs/latest/config.toml strategy=fedgan name=comparison
  huscf train resume=runs/latest num-server-rounds=50

A run that goes on from another has the keys of that one, unless they are set.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "train",
        help="train in this process",
        description=_DESCRIPTION,
        epilog=_keys_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with keys")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    parser.set_defaults(run=_run, listed="settings")


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.system.logs import set_up_logging
    from simulations.engine import Engine

    set_up_logging()
    settings = read_settings(options.config, options.settings)
    if resume := settings.get("resume"):
        settings = _keys_of(Path(str(resume))) | settings
    config = RunConfig.from_mapping(settings)
    engine = Engine(config, os.getcwd())
    done = threading.Event()
    bar = threading.Thread(target=_show_progress, args=(engine, done), daemon=True)
    bar.start()
    try:
        engine.run()
    except BaseException:
        if engine.report.saved_round:
            log.info(
                "go on after round %d with\n\n    huscf train resume=%s\n",
                engine.report.saved_round,
                shlex.quote(str(engine.report.folder)),
            )
        raise
    finally:
        done.set()
        bar.join()
    page = engine.report.folder / "report.html"
    if page.exists():
        print(page)


def _keys_of(before: Path) -> dict[str, Any]:
    """The keys of a run that is gone on with, but for its folder; none where there is no run."""
    file = before / "config.toml"
    return {**read_settings(str(file), []), "output-dir": ""} if file.exists() else {}


def _show_progress(engine: "Engine", done: threading.Event) -> None:
    """A progress bar over the client iterations of each round, where there is a terminal."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.stderr.isatty():
        return
    loggers = [logging.getLogger("huscf_flwr")]
    with logging_redirect_tqdm(loggers), tqdm(unit="it", leave=False, smoothing=0.1) as bar:
        while not done.wait(0.2):
            now = engine.progress()
            if now.done < bar.n:
                bar.reset(total=now.planned)
            bar.total = now.planned or None
            bar.set_description(now.note, refresh=False)
            bar.update(now.done - bar.n)


def _keys_help() -> str:
    lines = ["keys, with their defaults:"]
    for key in fields(RunConfig):
        lines.append(f"  {key.name.replace('_', '-')} = {json.dumps(key.default)}")
        lines.append(f"      {key.metadata['help']}")
    return "\n".join(lines)
