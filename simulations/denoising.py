"""How much noise it takes to hide an image and its label from who knows others of its kind.

    python -m simulations.denoising                 the default domains
    python -m simulations.denoising domains=digits image-size=28

For several `image-noise`, of each domain: the epsilon of an image by the accountant; how much more
alike than the mean image of its class the denoised one is, in structural similarity, where labels
are said as they are; and which share of labels is read where hardly anything is said of them. Of
up to 512 training images, by means of those held out; nothing is trained.
"""

import sys
from dataclasses import replace

import numpy as np
import torch

from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import to_unit
from huscf_flwr.data.sources import Domain, load_domain
from huscf_flwr.keys import read_settings
from huscf_flwr.privacy.accounting import local_privacy
from huscf_flwr.privacy.rebuilding import DENOISED
from huscf_flwr.privacy.similarity import ssim

_NOISE = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0)
_HARDLY = 0.25  # label-epsilon
_IMAGES = 512


def found(config: RunConfig, domain: Domain) -> tuple[float, float]:
    """Similarity beyond the class, and the share of labels that is read, by the better way."""
    noise, random = config.local_noise, np.random.default_rng(config.seed)
    assert noise is not None
    real = to_unit(domain.train.images[:_IMAGES])
    labels = domain.train.labels[:_IMAGES]
    known, known_labels = to_unit(domain.test.images), domain.test.labels
    noisy = real + noise.of_images(real.shape, random)
    of_class = torch.stack([known[known_labels == label].mean(dim=0) for label in labels])
    said, plain = noise.of_labels(labels, random), replace(noise, label_epsilon=0.0)
    alike, right = [], []
    for denoise in DENOISED.values():
        told = denoise(noisy, labels, known, known_labels, plain)
        alike.append(float(ssim(told.images, real).mean()))
        guessed = denoise(noisy, said, known, known_labels, noise).labels.argmax(dim=1)
        right.append(float((guessed == labels).float().mean()))
    return max(alike) - float(ssim(of_class, real).mean()), max(right)


def main() -> None:
    """Print a table, as Markdown."""
    config = RunConfig.from_mapping(read_settings(None, sys.argv[1:])).settled(".")
    data = config.data_settings(".")
    domains = [load_domain(source, config.image_format) for source in data.sources]
    names = [domain.name for domain in domains]
    columns = ("image-noise", "epsilon", *(f"{n}, beyond the class" for n in names))
    columns = (*columns, *(f"{n}, labels read" for n in names))
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for level in _NOISE:
        noisy = replace(config, image_noise=level, label_epsilon=_HARDLY)
        assert noisy.local_noise is not None
        promised = local_privacy(noisy.local_noise, config.image_format).image_epsilon
        gained, read = zip(*(found(noisy, domain) for domain in domains), strict=True)
        cells = [f"{level:g}", f"{promised:,.0f}", *(f"{value:.2f}" for value in gained)]
        print(f"| {' | '.join([*cells, *(f'{share:.0%}' for share in read)])} |")


if __name__ == "__main__":
    main()
