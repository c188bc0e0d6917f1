"""Train conditional GANs across unequal devices that send activations, gradients, parameters."""

from huscf_flwr.system import cpu  # noqa: F401  # isort: skip  (before torch: sets what it reads)

from huscf_flwr.nets import register_net
from huscf_flwr.nets.generator import load_generator

__all__ = ["load_generator", "register_net"]
