"""What a node insists on, by its own `--node-config`, whatever the server says."""

from collections.abc import Mapping

from flwr.common import Scalar

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError

IMAGE_NOISE, LABEL_EPSILON = "image-noise", "label-epsilon"
"""The least noise of images, and the most that a label may tell, that a node takes part with."""


def insist(node: Mapping[str, Scalar], run: RunConfig) -> None:
    """Raise `UserError` unless the run protects images and labels as the node wants it."""
    least = _number(node, IMAGE_NOISE)
    if least is not None and run.image_noise < least:
        raise UserError(
            f"it insists on image-noise of {least:g} or more; this run has {run.image_noise:g}"
        )
    most = _number(node, LABEL_EPSILON)
    if most is not None and not 0 < run.label_epsilon <= most:
        found = f"{run.label_epsilon:g}" if run.label_epsilon else "none"
        raise UserError(f"it insists on a label-epsilon of {most:g} or less; this run has {found}")


def _number(node: Mapping[str, Scalar], key: str) -> float | None:
    value = node.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{key}={value!r} in its --node-config: must be a number above 0")
    return float(value)
