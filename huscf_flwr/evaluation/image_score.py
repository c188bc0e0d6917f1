"""Image score: the inception score, under a classifier of the domain's real images.

Source: Salimans et al., "Improved Techniques for Training GANs" (2016), equation of section 4.
"""

from torch import Tensor


def image_score(probabilities: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)): 1 for blurs or one class, at most the number of classes.

    Parameters
    ----------
    probabilities: p(y|x) of n generated images under a classifier of real ones, (n, classes).
    """
    p = probabilities.double().clamp_min(1e-12)
    marginal = p.mean(dim=0, keepdim=True)
    return float((p * (p.log() - marginal.log())).sum(dim=1).mean().exp())
