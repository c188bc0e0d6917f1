"""`huscf data`: what images people have, and how they become what a run takes."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huscf_flwr.errors import UserError, cause, some

if TYPE_CHECKING:
    from huscf_flwr.data.conversion import Look
    from huscf_flwr.data.raw import Raw

_DESCRIPTION = """\
Look at labelled images, and bring them into the form that a run takes.

  huscf data check scans/
  huscf data check own.npz
  huscf data convert own.npz --out scans.npz --images pixels --labels diagnosis
  huscf data convert scans/ --out scans.npz --image-size 64 --classes benign,malignant

  huscf data check recordings/

PATH is an .npz file with arrays of any names, or a folder with a sub-folder of images for each
class, or with such folders named train, val and test. Images may be of any number type, channels
first or last; labels whole numbers, text, or one-hot rows. Or sub-folders of .wav files.
"""
_LARGEST = 64  # pixels that are suggested at most
_BANDS, _FASTEST, _SHARE = 32, 16_000, 0.95  # of a picture of sound; samples a second; of all


def add_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "data",
        help="check and convert images",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="check|convert")
    for name, run, what in (
        ("check", _check, "say what is there, and which keys of a run fit"),
        ("convert", _convert, "write an .npz file that a run takes"),
    ):
        action = actions.add_parser(name, help=what, description=what)
        add = action.add_argument
        add("path", metavar="PATH", help="an .npz file or a folder")
        add("--images", default="", metavar="NAME", help="of the array, where it is not plain")
        add("--labels", default="", metavar="NAME", help="of the array, where it is not plain")
        add(
            "--classes",
            default="",
            metavar="A,B,...",
            help="labels in their order; by number or alphabet without. Sites that convert each "
            "their own need the same",
        )
        action.set_defaults(run=run, parser=action)
        if name == "convert":
            add("--out", required=True, metavar="FILE.npz", help="where to")
            add("--image-size", type=int, default=0, metavar="PIXELS", help="of a side")
            add("--range", metavar="LOW,HIGH", help="values that become black and white")


def _check(options: argparse.Namespace) -> None:
    from huscf_flwr.data.conversion import look
    from huscf_flwr.data.folder import recordings_in
    from huscf_flwr.data.format import convert_command

    if recordings := recordings_in(options.path):
        print("\n".join(_of_recordings(options.path, recordings)))
        return
    parts, classes = _parts(options)
    found = look(parts, classes)
    print("\n".join(_table(options.path, parts, found)))
    size = _suggested(found)
    problem = _problem(options.path, found, size)
    if notes := [*_notes(found), *([problem] if problem else [])]:
        print("\n".join(f"- {note}" for note in notes), end="\n\n")
    if problem is None:
        print("a run takes it as it is, with")
    else:
        more = f" --image-size {size}" if len(found.sizes) > 1 else ""
        print(f"a run takes it after\n    {convert_command(options.path)}{more}\nwith")
    path = options.path if problem is None else "FILE.npz"
    print(f"    domains={path} {_keys(found, size)}")


def _of_recordings(path: str, classes: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """What is there, and the keys of a run that fit."""
    from huscf_flwr.data.sound import length_of

    found = []
    for file in (file for files in classes.values() for file in files):
        try:
            found.append(length_of(file))
        except Exception as error:  # SciPy raises whatever a broken file leads it to
            raise UserError(f"{file}: cannot be read as a recording: {cause(error)}") from None
    lengths, rates = sorted(length for length, _ in found), sorted({rate for _, rate in found})
    most = lengths[int(_SHARE * (len(lengths) - 1))]
    yield (
        f"{path}: {len(lengths)} recordings of {lengths[0]:.2f} to {lengths[-1]:.2f} s, at "
        f"{', '.join(map(str, rates))} samples a second"
    )
    yield f"\n{'label':>7}  {'recordings':>10}  class"
    for label, (name, files) in enumerate(classes.items()):
        yield f"{label:>7}  {len(files):>10}  {name}"
    yield f"\n- {_SHARE:.0%} of them last up to {most:.2f} s; what is longer is cut"
    yield "\na run takes it as it is, with"
    yield (
        f"    domains={path} sound-seconds={most:.2f} sound-rate={min(_FASTEST, rates[-1])} "
        f"image-size={_BANDS} channels=1 num-classes={len(classes)}"
    )


def _convert(options: argparse.Namespace) -> None:
    from huscf_flwr.data.conversion import convert
    from huscf_flwr.data.folder import recordings_in

    if recordings_in(options.path):
        raise UserError(f"{options.path}: a run takes recordings as they are: huscf data check")

    out = Path(options.out)
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: must end in .npz")
    if options.image_size and options.image_size < 8:
        raise UserError(f"--image-size {options.image_size}: must be at least 8")
    parts, classes = _parts(options)
    span = _span(options.range) if options.range else None
    found = convert(parts, out, classes=classes, span=span, size=options.image_size)
    low, high = span or found.span
    print(
        f"{sum(found.counts.values())} images in {out}: {low:g} is black, {high:g} white; labels"
    )
    print("\n".join(f"  {label:>4}  {name}" for label, name in enumerate(found.counts)))
    print(f"a run takes it with\n    domains={out} {_keys(found, options.image_size)}")


def _parts(options: argparse.Namespace) -> tuple[Mapping[str, "Raw"], Sequence[str]]:
    """The images, and their classes in order, where the user or the file says it."""
    from huscf_flwr.data.npz import class_names
    from huscf_flwr.data.raw import read_raw

    parts = read_raw(options.path, options.images, options.labels)
    classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    return parts, classes or (class_names(options.path) if Path(options.path).is_file() else ())


def _span(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise UserError(f"--range {text}: must be two numbers, as in 0,4095")
    return low, high


def _table(path: str, parts: Mapping[str, "Raw"], found: "Look") -> Iterator[str]:
    """What is there, and how many of each class."""
    sizes = sorted(found.sizes)
    shown = " to ".join(
        f"{height} x {width}" for height, width in dict.fromkeys((sizes[0], sizes[-1]))
    )
    colour = "colour" if found.channels == 3 else "grey"
    low, high = found.values
    yield (
        f"{path}: {sum(found.counts.values())} images, {shown} pixels (height x width), {colour}, "
        f"{', '.join(sorted(found.kinds))} from {low:g} to {high:g}"
    )
    if any(parts):
        yield ", ".join(f"{name}: {len(part.labels)}" for name, part in parts.items())
    yield f"\n{'label':>7}  {'images':>7}  class"
    for label, (name, count) in enumerate(found.counts.items()):
        yield f"{label:>7}  {count:>7}  {name}"
    yield ""


def _notes(found: "Look") -> Iterator[str]:
    """What may surprise somebody who trains on it."""
    empty = [name for name, count in found.counts.items() if not count]
    if empty:
        yield f"no images of class {some(empty)}: --classes numbers those that there are"
    rare = [name for name, count in found.counts.items() if count == 1]
    if rare:
        yield (
            f"class {some(rare)} has 1 image: in a run's domains each needs 2, one of which is "
            "held out; a device's own data may have it"
        )
    if any(height != width for height, width in found.sizes):
        yield "not all are square: a run squeezes them, and does not keep proportions"
    largest = max(map(max, found.sizes))
    if largest > _LARGEST:
        yield f"of {largest} pixels, {_LARGEST} are suggested: work grows with their square"


def _problem(path: str, found: "Look", size: int) -> str | None:
    """Why a run does not take it as it is; None if it does."""
    from huscf_flwr.data.format import ImageFormat
    from huscf_flwr.data.sources import load_own

    if "uint16" in found.kinds and found.span[1] < 65535:
        return f"a run would see 16 bits of which {found.values[1]:g} is the highest as too dark"
    try:
        load_own(path, ImageFormat(size, found.channels, len(found.counts)))
    except UserError as error:
        return str(error)
    return None


def _suggested(found: "Look") -> int:
    """A size that the built-in net takes."""
    largest = max(map(max, found.sizes))
    return min(_LARGEST, max(16, round(largest / 4) * 4))


def _keys(found: "Look", size: int) -> str:
    return (
        f"image-size={size or _suggested(found)} channels={found.channels} "
        f"num-classes={len(found.counts)}"
    )
