"""`huscf generate`: images from what was trained."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from huscf_flwr.cli import trained
from huscf_flwr.data.batches import to_uint8
from huscf_flwr.errors import UserError

_DESCRIPTION = """\
Generate images from a generator that a run left.

  huscf generate runs/latest/generator-cluster-0.safetensors -n 100 --out grid.png
  huscf generate runs/latest/generator-cluster-1.safetensors -n 5000 --label 3 --out threes.npz
  huscf generate runs/latest/checkpoints/round-029.safetensors --cluster 1 --out before.png

A .png shows the images side by side; an .npz holds `images` (uint8, (n, H, W) or (n, H, W, C)) and
`labels` (int64), and can be used as a domain. Of a generator that was trained on recordings, a
.wav has what they sound like, one after the other.
"""


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "generate",
        help="generate images from a trained generator",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    trained.add_arguments(parser)
    parser.add_argument("-n", type=int, default=100, help="how many (100)")
    parser.add_argument("--label", type=int, help="one class for all; all in turn without")
    parser.add_argument("--seed", type=int, help="same seed, same images; new ones without")
    parser.add_argument("--out", required=True, metavar="FILE", help=".png, .npz or .wav")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from huscf_flwr.data.sound import save_wav, waves_of
    from huscf_flwr.report.grids import save_images

    path = Path(options.out)
    if path.suffix not in (".png", ".npz", ".wav"):
        raise UserError(f"--out {path}: must end in .png, .npz or .wav")
    generator = trained.load(options)
    sound = generator.sound
    if path.suffix == ".wav" and sound is None:
        raise UserError(f"--out {path}: {options.file} was trained on images, not on recordings")
    images, labels = generator.sample(options.n, options.label, options.seed)
    try:
        if path.suffix == ".png":
            columns = generator.spec.num_classes if options.label is None else 10
            save_images(images, path, columns)
        elif sound is not None and path.suffix == ".wav":
            save_wav(waves_of(to_uint8(images.mean(dim=1)).numpy(), sound), path, sound)
        else:
            pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
            grey = pixels.shape[3] == 1
            np.savez(path, images=pixels[..., 0] if grey else pixels, labels=labels.numpy())
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error}") from None
    print(f"{len(images)} {'sounds' if path.suffix == '.wav' else 'images'} in {path}")
