"""Train conditional GANs across unequal devices that send activations, gradients, parameters."""

from huscf_flwr import cpu  # noqa: F401  (sets what must be set before torch is imported)
from huscf_flwr.generator import load_generator
from huscf_flwr.nets import register_net

__all__ = ["load_generator", "register_net"]
