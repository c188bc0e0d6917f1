"""Train conditional GANs across unequal devices whose images and labels stay where they are."""

from huscf_flwr import cpu  # noqa: F401  (sets what must be set before torch is imported)
from huscf_flwr.generator import load_generator
from huscf_flwr.nets import register_net

__all__ = ["load_generator", "register_net"]
