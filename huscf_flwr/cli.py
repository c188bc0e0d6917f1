"""The command `huscf`: train in this process, generate images from what was trained."""

from huscf_flwr import cpu  # isort: skip  (before torch)

import argparse
import logging
import os
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from huscf_flwr.batches import to_uint8
from huscf_flwr.config import RunConfig, read_settings
from huscf_flwr.errors import UserError
from huscf_flwr.generator import load_generator
from huscf_flwr.reporting import save_images, set_up_logging

if TYPE_CHECKING:
    from simulations.engine import Engine

_TRAIN = """\
Train in this process: no Ray, no network; the same strategies and clients as `flwr run`.

Keys may be set in a TOML file (--config) and on the command line, which wins:

  huscf train
  huscf train num-clients=16 domains=digits num-server-rounds=20
  huscf train --config runs/latest/config.toml strategy=fedgan name=comparison
"""

_GENERATE = """\
Generate images from a generator that a run left.

  huscf generate runs/latest/generator-cluster-0.safetensors -n 100 --out grid.png
  huscf generate runs/latest/generator-cluster-1.safetensors -n 5000 --label 3 --out threes.npz

A .png shows the images side by side; an .npz holds `images` (uint8, (n, H, W) or (n, H, W, C)) and
`labels` (int64), and can be used as a domain.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 1 after a message that says what is wrong."""
    parser = argparse.ArgumentParser(prog="huscf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    train = commands.add_parser(
        "train",
        help="train in this process",
        description=_TRAIN,
        epilog=_keys_help(),
        formatter_class=raw,
    )
    train.add_argument("--config", metavar="FILE", help="TOML file with keys")
    train.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    train.set_defaults(run=_train)

    generate = commands.add_parser(
        "generate",
        help="generate images from a trained generator",
        description=_GENERATE,
        formatter_class=raw,
    )
    generate.add_argument("file", metavar="FILE", help="generator-cluster-*.safetensors")
    generate.add_argument("-n", type=int, default=100, help="how many (100)")
    generate.add_argument("--label", type=int, help="one class for all; all in turn without")
    generate.add_argument("--seed", type=int, help="same seed, same images; new ones without")
    generate.add_argument("--out", required=True, metavar="FILE", help=".png or .npz")
    generate.set_defaults(run=_generate)

    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"huscf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("huscf: interrupted", file=sys.stderr)
        return 130
    return 0


def _train(options: argparse.Namespace) -> None:
    from simulations.engine import Engine

    cpu.keep_freed_memory()
    set_up_logging()
    config = RunConfig.from_mapping(read_settings(options.config, options.settings))
    engine = Engine(config, os.getcwd())
    done = threading.Event()
    bar = threading.Thread(target=_show_progress, args=(engine, done), daemon=True)
    bar.start()
    try:
        engine.run()
    finally:
        done.set()
        bar.join()


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


def _generate(options: argparse.Namespace) -> None:
    path = Path(options.out)
    if path.suffix not in (".png", ".npz"):
        raise UserError(f"--out {path}: must end in .png or .npz")
    generator = load_generator(options.file)
    images, labels = generator.sample(options.n, options.label, options.seed)
    try:
        if path.suffix == ".png":
            columns = generator.spec.num_classes if options.label is None else 10
            save_images(images, path, columns)
        else:
            pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
            grey = pixels.shape[3] == 1
            np.savez(path, images=pixels[..., 0] if grey else pixels, labels=labels.numpy())
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error}") from None
    print(f"{len(images)} images in {path}")


def _keys_help() -> str:
    lines = ["keys, with their defaults:"]
    for key in fields(RunConfig):
        default = f'"{key.default}"' if isinstance(key.default, str) else key.default
        lines.append(f"  {key.name.replace('_', '-')} = {default}")
        lines.append(f"      {key.metadata['help']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
