"""How much each client counts in its cluster: the KLD weights.

Pure functions on arrays. Source: the paper's clustered federated learning. A client's *divergence*
is that of where its activation lies from where those of the others in its cluster do.
"""

import numpy as np

EPSILON = 1e-9

Array = np.ndarray


def position_distributions(activation: Array) -> Array:
    """P[c]: softmax over the positions of each channel, shape (C, positions)."""
    flat = activation.reshape(len(activation), -1).astype(np.float64)
    exponentials = np.exp(flat - flat.max(axis=1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def divergences(activations: Array) -> Array:
    """KLD of each member of one group to the others, shape (members,); zero for a group of one.

    KLD_k = mean over channels of sum(Q_k * log(Q_k / P_k)), where Q_k is the mean of the other
    members' P.
    """
    if len(activations) == 1:
        return np.zeros(1)
    p = np.stack([position_distributions(activation) for activation in activations])
    q = (p.sum(axis=0) - p) / (len(p) - 1)
    kld = (q * np.log((q + EPSILON) / (p + EPSILON))).sum(axis=2).mean(axis=1)
    result: Array = np.maximum(kld, 0.0)
    return result


def weights(sizes: Array, klds: Array, beta: float) -> Array:
    """Weights of the members of one group, proportional to n_k * exp(-beta * KLD_k); sum 1."""
    # Shifting all divergences alike cancels out, and keeps the exponentials above zero.
    raw = sizes * np.exp(-beta * (klds - klds.min()))
    result: Array = raw / raw.sum()
    return result
