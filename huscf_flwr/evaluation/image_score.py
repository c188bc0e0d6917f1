"""Image score: the inception score, under a classifier of the domain's real images.

Source: Salimans et al., "Improved Techniques for Training GANs" (2016), equation of section 4.
"""

from torch import Tensor


def image_score(probabilities: Tensor, group: int) -> float:
    """exp of the mean KL(p(y|x) || p(y)): 1 for blurs or one class, at most the number of classes.

    The mean over groups of images, as there. Every image is part of the p(y) that it is compared
    with, the more so the fewer there are, which makes for lower scores: only scores of equal
    groups compare.

    Parameters
    ----------
    probabilities: p(y|x) under a classifier of real images, (n, classes), in random order.
    group: images in a group, 1 to n; what is left over is left out.
    """
    p = probabilities[: len(probabilities) // group * group].double().clamp_min(1e-12)
    p = p.unflatten(0, (-1, group))
    marginal = p.mean(dim=1, keepdim=True)
    return float((p * (p.log() - marginal.log())).sum(dim=2).mean(dim=1).exp().mean())
