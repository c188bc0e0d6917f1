"""Images, or recordings, in a folder with a sub-folder for each class."""

import itertools
import os
from pathlib import Path

import numpy as np

from huscf_flwr.data.format import Arrays, ImageFormat, Kind, convert_command, to_format
from huscf_flwr.data.sound import is_recording, picture_of
from huscf_flwr.errors import UserError, cause, some

_GREY = ("1", "L", "LA")  # modes of PIL's with 8 bits at most
_WIDE = ("I", "F")  # with 32


def read_folder(path: str, image_format: ImageFormat) -> Arrays:
    """All images below a folder, at the run's size, for they may differ in theirs.

    Parameters
    ----------
    path: the folder. Its sub-folders are the classes: the first by name is label 0. What is in
        them is image files in any format that PIL reads, of any size, or recordings. Skipped are
        hidden names and files without the suffix of such: file managers leave such things behind.
    image_format: size and channels that every image is brought to as it is read.

    Raises
    ------
    UserError: no class folders, one without images, with folders in it or that cannot be listed;
        files that have the suffix of an image and are no readable ones; or recordings, and the
        format says nothing of sound.
    """
    classes = class_files(path)
    images, unreadable = [], []
    for file in itertools.chain.from_iterable(classes.values()):
        try:
            images.append(to_format(_pixels(file, image_format)[None], image_format))
        except UserError:
            raise
        except Exception as error:  # PIL's decoders raise whatever a broken file leads them to
            reason = cause(error).replace(f" '{file}'", "")  # it is named already
            unreadable.append(f"{file.relative_to(path)} ({reason})")
    if unreadable:
        raise UserError(
            f"{path}: not readable as images or recordings: {some(unreadable)}; remove or repair "
            f"them, or if they are of 32 bits, {convert_command(path)}"
        )
    pixels = np.concatenate([image.permute(0, 2, 3, 1).numpy() for image in images])
    return pixels, np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])


def folder_kind(path: str) -> Kind:
    """What is in a folder, by the names of its sub-folders and the headers of its files.

    Raises
    ------
    UserError: as `read_folder`, but for files that are no readable images.
    """
    classes = class_files(path)
    files = itertools.chain.from_iterable(classes.values())
    return Kind(tuple(classes), 3 if any(map(_in_colour, files)) else 1)


def class_files(path: str) -> dict[str, list[Path]]:
    """The images of each class, by its name, sorted; raises `UserError` where there are none."""
    expected = "it must have one sub-folder of images for each class"
    folders, _ = listed(Path(path))
    if not folders:
        raise UserError(f"{path}: no sub-folders; {expected}")
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        below, classes[folder.name] = listed(folder)
        if below:
            raise UserError(
                f"{path}: its sub-folder {folder.name} has folders in it, as {below[0].name}; "
                f"{expected} (of a layout with train and test, name one part: {folder}; or for "
                f"all, {convert_command(path)})"
            )
    if empty := [name for name, files in classes.items() if not files]:
        raise UserError(f"{path}: no images in {some(empty)}; {expected}")
    return classes


def recordings_in(path: str) -> dict[str, list[Path]]:
    """The recordings of each class of a folder; none where that is not what it holds."""
    if not os.path.isdir(path):
        return {}
    folders, _ = listed(Path(path))
    found = {folder.name: listed(folder)[1] for folder in folders}
    files = [*itertools.chain.from_iterable(found.values())]
    return found if files and all(map(is_recording, files)) else {}


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sub-folders of a folder, and images by their suffix, sorted; where there are none,
    recordings."""
    from PIL import Image

    images = {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    try:
        shown = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in shown if entry.is_dir()]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {cause(error)}") from None
    files = [entry for entry in shown if entry not in folders]
    found = [file for file in files if file.suffix.lower() in images]
    return folders, found or [file for file in files if is_recording(file)]


def raw_pixels(file: Path) -> np.ndarray:
    """(H, W), or uint8 (H, W, 3) where there is colour; of grey the values as they are."""
    from PIL import Image

    with Image.open(file) as image:
        if image.mode.startswith("I;16") or image.mode in _WIDE:  # PIL would clip, not scale them
            return np.asarray(image)
        return np.array(image.convert("L" if image.mode in _GREY else "RGB"))


def _pixels(file: Path, image_format: ImageFormat) -> np.ndarray:
    """uint8 (H, W), or (H, W, 3) where there is colour."""
    if is_recording(file):
        if image_format.sound is None:
            raise UserError(
                f"{file} is a recording: set sound-seconds to how long recordings are, at most"
            )
        return picture_of(file, image_format.size, image_format.sound)
    found = raw_pixels(file)
    if found.dtype == np.uint8:
        return found
    if found.dtype.itemsize == 2:
        return (found >> 8).astype(np.uint8)
    raise ValueError("of 32 bits")


def _in_colour(file: Path) -> bool:
    """By its header; not, where that cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return not (image.mode.startswith("I;16") or image.mode in (*_GREY, *_WIDE))
    except Exception:  # reading it will say what is wrong
        return False
