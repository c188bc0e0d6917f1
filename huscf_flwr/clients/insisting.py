"""What a node insists on, by its own `--node-config`, whatever the server says."""

from collections.abc import Mapping

from flwr.common import Scalar

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.privacy.accounting import local_privacy

IMAGE_EPSILON, LABEL_EPSILON = "image-epsilon", "label-epsilon"
"""The most that an image and a label may tell in a run that a node takes part in."""


def insist(node: Mapping[str, Scalar], run: RunConfig) -> None:
    """Raise `UserError` unless the run protects images and labels as the node wants it.

    It is epsilons that count, not noise: noise of each value of an image that is brought to a
    larger size could be averaged.
    """
    wanted = {key for key in node if "epsilon" in key or "noise" in key}
    if unknown := wanted - {IMAGE_EPSILON, LABEL_EPSILON}:
        raise UserError(
            f"{', '.join(sorted(unknown))} in its --node-config: a node can insist on "
            f"{IMAGE_EPSILON} and {LABEL_EPSILON}"
        )
    if not wanted:
        return
    noise = run.local_noise
    promised = None if noise is None else local_privacy(noise, run.image_format)
    for key, found in (
        (IMAGE_EPSILON, None if promised is None else promised.image_epsilon),
        (LABEL_EPSILON, None if promised is None else promised.label_epsilon),
    ):
        most = node.get(key)
        if most is None:
            continue
        if isinstance(most, bool) or not isinstance(most, int | float) or not most > 0:
            raise UserError(f"{key}={most!r} in its --node-config: must be a number above 0")
        if found is None or found > most:
            has = "none" if found is None else f"{found:.4g}"
            raise UserError(f"it insists on {key} of {most:g} or less; this run has {has}")
