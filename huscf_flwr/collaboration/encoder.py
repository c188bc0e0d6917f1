"""A small autoencoder: what images have in common, as a few numbers each."""

import torch
from torch import Tensor, nn

LATENT = 16
_WIDTH, _BATCH, _EPOCHS, _RATE = 8, 64, 3, 1e-3


def latents(images: Tensor, seed: int) -> Tensor:
    """Train an autoencoder on these images; what its encoder makes of them.

    Parameters
    ----------
    images: float32 (n, C, H, W) in [-1, 1]; H and W multiples of 4.
    seed: of its parameters, and of the order of the images.

    Returns
    -------
    float32 (n, 16)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = _encoder(images.shape[1:]), _decoder(images.shape[1:])
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], _RATE)
        for _ in range(_EPOCHS):
            for batch in images[torch.randperm(len(images))].split(_BATCH):
                loss = nn.functional.mse_loss(decoder(encoder(batch)), batch)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    with torch.no_grad():
        return torch.cat([encoder(batch) for batch in images.split(_BATCH)])


def _encoder(shape: torch.Size) -> nn.Sequential:
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * _WIDTH * (height // 4) * (width // 4), LATENT),
    )


def _decoder(shape: torch.Size) -> nn.Sequential:
    channels, height, width = shape
    inner = (2 * _WIDTH, height // 4, width // 4)
    return nn.Sequential(
        nn.Linear(LATENT, inner[0] * inner[1] * inner[2]),
        nn.ReLU(),
        nn.Unflatten(1, inner),
        nn.ConvTranspose2d(2 * _WIDTH, _WIDTH, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(_WIDTH, channels, 4, 2, 1),
        nn.Tanh(),
    )
