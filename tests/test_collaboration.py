"""What PFL-GAN-style training makes of its clients' generators."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bytes_of, tiny

from huscf_flwr.clients.mixing import LABELS, MIX_LABELS, unpacked
from huscf_flwr.collaboration.encoder import LATENT, latents
from huscf_flwr.collaboration.similarity import divergences, mixing_weights
from simulations.engine import Engine
from strategies.pflgan import PFLGAN

pytestmark = pytest.mark.usefixtures("few_steps")


def test_divergences_by_hand() -> None:
    """Of N(0, 1) and N(1, 4): (0.5 (1/4 + 1/4 - 1 + log 4) + 0.5 (4 + 1 - 1 - log 4)) / 2."""
    sets = [np.array([[-1.0], [1.0]]), np.array([[-1.0], [3.0]]), np.array([[1.0], [-1.0]])]
    found = divergences(sets)
    assert found[0, 1] == found[1, 0] == pytest.approx((0.25 + 0.25 - 1 + 4 + 1 - 1) / 4, rel=1e-3)
    assert found[0, 2] == found[1, 1] == 0


def test_mixing_weights_by_hand() -> None:
    """The median of 1, 2 and 9 is 2; the last of them has too little of what the first has."""
    found = mixing_weights(np.array([[0, 1, 2, 9], [1, 0, 1, 1], [2, 1, 0, 9], [9, 1, 9, 0.0]]))
    parts = np.array([1, np.exp(-0.5), np.exp(-1), 0])
    assert found[0] == pytest.approx(parts / parts.sum())
    assert found.sum(axis=1) == pytest.approx(1)
    assert mixing_weights(np.zeros((1, 1))) == [[1.0]]
    assert mixing_weights(np.zeros((2, 2))) == pytest.approx(np.full((2, 2), 0.5))


def test_latents_tell_light_images_from_dark_ones() -> None:
    random = torch.Generator().manual_seed(0)
    light = (torch.rand((300, 1, 16, 16), generator=random) + 0.5).clamp(-1, 1)
    found = latents(torch.cat([light[:200], -light[200:]]), seed=0)
    assert found.shape == (300, LATENT)
    first, second, dark = (part.numpy() for part in found.split(100))
    between = divergences([first, second, dark])
    assert between[0, 1] < 0.05 * between[0, 2]
    assert torch.equal(found, latents(torch.cat([light[:200], -light[200:]]), seed=0))


def test_a_run(folder: Path) -> None:
    """Clients keep their own nets, and train on images of labels that others have."""
    config = tiny(strategy="pflgan", num_server_rounds=2, output_dir="out")
    engine = Engine(config, str(folder))
    engine.run()
    strategy = engine.strategy
    assert isinstance(strategy, PFLGAN)
    assert strategy.models.keys() == {0, 1, 2}
    assert len({str(bytes_of(model)) for model in strategy.models.values()}) == 3
    strategy.held[1][LABELS] = strategy.held[2][LABELS] = torch.tensor([0, 0, 1])
    clients = list(strategy.roster.clients.values())
    told = strategy.open_round(3, clients, 1)
    assert set(unpacked(told[0][MIX_LABELS]).tolist()) == {2}  # type: ignore[arg-type]
    sizes = [len(unpacked(told[info.number][MIX_LABELS])) for info in clients]  # type: ignore[arg-type]
    weights = strategy.shares(3)
    due = [(1 - weights[k, k]) * clients[k].size for k in range(3)]
    assert sizes == pytest.approx(due, abs=1)
