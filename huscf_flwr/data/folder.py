"""Images in a folder with a sub-folder for each class."""

from pathlib import Path

import numpy as np

from huscf_flwr.data.format import Arrays, ImageFormat, to_format
from huscf_flwr.errors import UserError


def read_folder(path: str, image_format: ImageFormat) -> Arrays:
    """All images below a folder, at the run's size, for they may differ in theirs.

    Parameters
    ----------
    path: the folder. Its sub-folders are the classes: the first by name is label 0. What is in
        them is image files in any format that PIL reads, of any size. Hidden names are skipped:
        file managers leave such things behind.
    image_format: size and channels that every image is brought to as it is read.

    Raises
    ------
    UserError: no class folders, no images, or files that are no readable images.
    """
    classes = [entry for entry in _listed(Path(path)) if entry.is_dir()]
    files = [(file, label) for label, folder in enumerate(classes) for file in _listed(folder)]
    if not files:
        lack = "no images in its sub-folders" if classes else "no sub-folders"
        raise UserError(f"{path}: {lack}; it must have one sub-folder of images for each class")
    images, unreadable = [], []
    for file, _ in files:
        try:
            images.append(to_format(_pixels(file)[None], image_format))
        except Exception as error:  # PIL's decoders raise whatever a broken file leads them to
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = reason.replace(f" '{file}'", "")  # it is named already
            unreadable.append(f"{file}: not a readable image: {reason}")
    if unreadable:
        more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        raise UserError(f"{unreadable[0]}{more}; remove or repair what is no image")
    pixels = np.concatenate([image.permute(0, 2, 3, 1).numpy() for image in images])
    return pixels, np.array([label for _, label in files], dtype=np.int64)


def _listed(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _pixels(file: Path) -> np.ndarray:
    """uint8 (H, W), or (H, W, 3) where there is colour."""
    from PIL import Image

    with Image.open(file) as image:
        if image.mode.startswith("I;16"):  # PIL would clip 16 bits, not scale them
            return (np.asarray(image) >> 8).astype(np.uint8)
        return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
