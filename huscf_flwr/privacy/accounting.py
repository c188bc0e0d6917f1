"""What local noise promises: epsilons of local differential privacy, by Google's accountant."""

from dataclasses import dataclass

from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.local_noise import LocalNoise

DELTA = 1e-5


@dataclass(frozen=True)
class LocalPrivacy:
    """What any two images, with any labels, that a client could have had tell apart at most.

    It holds for all that leaves the client in all rounds and runs with the same noise, since all
    is made of one noisy version of each image.

    Attributes
    ----------
    image_epsilon: of the image, at `delta`; None without noise: nothing is promised.
    label_epsilon: of the label, given the image; None: nothing is promised.
    delta: with which probability the first may fail.
    """

    image_epsilon: float | None
    label_epsilon: float | None
    delta: float = DELTA


def local_privacy(noise: LocalNoise, image_format: ImageFormat) -> LocalPrivacy:
    """What this noise promises, of images of this format.

    Two images differ by 2 in each value at most, so the Gaussian mechanism has a sensitivity of
    2 sqrt(values); one release of each image.
    """
    from dp_accounting import get_epsilon_gaussian  # slow to import, and seldom needed

    values = image_format.channels * image_format.size**2
    image_epsilon = None
    if noise.images:
        image_epsilon = float(get_epsilon_gaussian(noise.images / (2 * values**0.5), DELTA))
    return LocalPrivacy(image_epsilon, noise.label_epsilon or None)
