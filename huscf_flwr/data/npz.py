"""Images in an .npz file: arrays of any origin, or MedMNIST's."""

import zipfile
from collections.abc import Callable

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile

from huscf_flwr.data.format import Arrays, convert_command
from huscf_flwr.errors import UserError, cause, no_such_file

IMAGES, LABELS, CLASSES = "images", "labels", "classes"
"""The arrays of a file."""
PARTS = ("train", "val", "test")
"""Of MedMNIST's files, in which `<part>_` stands before these names."""
_MEDMNIST = [f"{part}_{kind}" for part in PARTS for kind in (IMAGES, LABELS)]


def read_npz(path: str) -> tuple[Arrays, Arrays | None]:
    """Images and labels of a file, and its own test part if it has one.

    Parameters
    ----------
    path: a file with `images` (uint8, (n, H, W) or (n, H, W, C)) and `labels` (integers, (n,) or
        (n, 1)); or one of MedMNIST, which has both for each of `train_`, `val_` and `test_`. There
        validation images are taken for training.

    Raises
    ------
    UserError: the file cannot be read, or an array is missing or of the wrong kind.
    """
    parts = _parts(path, NpzFile.__getitem__)
    if len(parts) == 1:
        return parts[0], None
    train, validation, test = parts
    if train[0].shape[1:] != validation[0].shape[1:]:
        raise UserError(
            f"{path}: train_images are of shape {train[0].shape}, val_images of "
            f"{validation[0].shape}: they must differ in their number only"
        )
    images, labels = (np.concatenate(pair) for pair in zip(train, validation, strict=True))
    return (images, labels), test


def outline_npz(path: str) -> list[Arrays]:
    """The parts of a file that `read_npz` reads: labels, and images that have no pixels yet.

    Raises
    ------
    UserError: see `read_npz`.
    """
    return _parts(path, _without_pixels)


def _without_pixels(file: NpzFile, name: str) -> np.ndarray:
    """An array of the same shape and type that takes no memory, and no time to read."""
    assert file.zip is not None  # it is open
    with file.zip.open(f"{name}.npy") as member:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = read[npy.read_magic(member)](member)
    return np.broadcast_to(np.empty((), dtype), shape)


def _parts(path: str, images_in: Callable[[NpzFile, str], np.ndarray]) -> list[Arrays]:
    """Images, as this function finds them in a file, and labels: one pair, or MedMNIST's three."""
    try:
        zipfile.ZipFile(path).close()  # numpy would take what is none for a pickle
        with np.load(path, allow_pickle=False) as file:
            names = _MEDMNIST if _MEDMNIST[0] in file else [IMAGES, LABELS]
            missing = set(names) - set(file)
            if missing:
                raise UserError(
                    f'{path}: lacks the array "{min(missing)}"; {convert_command(path)} finds '
                    "others"
                )
            arrays = [
                images_in(file, name) if name.endswith(IMAGES) else file[name] for name in names
            ]
        for name, array in zip(names, arrays, strict=True):
            if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is none
                raise UserError(f'{path}: "{name}" in it is not an array')
    except UserError:
        raise
    except FileNotFoundError:
        raise no_such_file(path) from None
    except Exception as error:  # numpy and zipfile raise whatever a damaged file leads them to
        raise UserError(f"{path}: not a readable .npz file: {cause(error)}") from None
    return [_checked(path, *arrays[i : i + 2]) for i in range(0, len(arrays), 2)]


def class_names(path: str) -> tuple[str, ...]:
    """The names of the labels of a file that `read_npz` reads, in `classes`; none without.

    Raises
    ------
    UserError: `classes` is no list of texts.
    """
    with np.load(path, allow_pickle=False) as file:
        names = file[CLASSES] if CLASSES in file else np.empty(0, "U")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(
            f'{path}: "classes" is {names.dtype} of shape {names.shape}; it must be text, a name '
            "for each label"
        )
    return tuple(names.tolist())


def _checked(path: str, images: np.ndarray, labels: np.ndarray) -> Arrays:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{path}: images are {images.dtype} of shape {images.shape}; they must be uint8 of "
            f"shape (n, H, W) or (n, H, W, C), as {convert_command(path)} makes them"
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise UserError(
            f"{path}: images have {images.shape[3]} channels; 1 or 3 are allowed: "
            f"see {convert_command(path)}"
        )
    count = len(images)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((count,), (count, 1)):
        raise UserError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; they must be integers of "
            f"shape ({count},), one for each image, as {convert_command(path)} makes them"
        )
    return images, labels.reshape(count).astype(np.int64)
