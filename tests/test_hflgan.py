"""HFL-GAN-style training: two generators, two stages of averaging."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RATE, SHAPES, SPEC, bytes_of, stream, tiny

from huscf_flwr.nets import GEN, State, initial_state
from huscf_flwr.nets.two_generators import CENTRAL, TwoGeneratorsTrainer, renamed
from huscf_flwr.nets.unsplit import UnsplitTrainer
from simulations.engine import Engine
from strategies.hflgan import HFLGAN
from strategies.updates import Combined, Update

pytestmark = pytest.mark.usefixtures("few_steps")


def test_with_equal_generators_it_is_the_plain_training_of_one() -> None:
    state = initial_state(SPEC, 0, torch.float64)
    twice = state | renamed(state, GEN, CENTRAL)
    trainer = TwoGeneratorsTrainer(SPEC, SHAPES, twice, learning_rate=RATE)
    plain = UnsplitTrainer(SPEC, SHAPES, state, learning_rate=RATE)
    batch = stream(0)[0]
    batch = batch._replace(images=batch.images.double(), latent=batch.latent.double())
    ours, due = trainer.iteration(batch), plain.iteration(batch)
    assert (ours.generator, ours.discriminator) == pytest.approx(
        (due.generator, due.discriminator), rel=1e-12
    )
    expected = dict(plain.nets.named_parameters())
    for name, value in trainer.nets.named_parameters():
        torch.testing.assert_close(
            value, expected[name.replace(CENTRAL, GEN)], rtol=1e-8, atol=1e-12
        )


class Recorded(HFLGAN):
    """Keeps what came of each round."""

    def combine(self, server_round: int, updates: list[Update]) -> Combined:
        before = {update.info.number: self.begins_with(update.info) for update in updates}
        found = super().combine(server_round, updates)
        self.rounds: list[tuple[dict[int, State], list[Update], Combined, dict[int, State]]]
        self.rounds = [*getattr(self, "rounds", []), (before, updates, found, self.central.copy())]
        return found


def test_two_stages(folder: Path) -> None:
    """An edge's nets are its clients' mean, by size; from round 2 on all share one generator."""
    config = tiny(
        strategy=f"{__name__}:Recorded", num_clients=4, num_server_rounds=3, hfl_edges=2,
        hfl_central=2, output_dir="out",
    )  # fmt: skip
    engine = Engine(config, str(folder))
    engine.run()
    strategy = engine.strategy
    assert isinstance(strategy, Recorded)
    name = "gen.1.0.weight"
    second = name.replace(GEN, CENTRAL)
    for number, (before, updates, found, central) in enumerate(strategy.rounds, 1):
        sizes = {update.info.number: update.info.size for update in updates}
        for edge in found.models:
            members = [u for u in updates if found.assignment[u.info.number] == edge]
            shares = np.array([sizes[u.info.number] for u in members]) / sum(
                sizes[u.info.number] for u in members
            )
            for key, ours in ((name, found.models[edge]), (second, central[edge])):
                if key == second and number == 2:
                    members, shares = updates, np.array(list(sizes.values())) / sum(sizes.values())
                due = sum(s * u.state[key].double() for s, u in zip(shares, members, strict=True))
                torch.testing.assert_close(ours[key].double(), due, rtol=1e-6, atol=1e-7)
        if number == 3:
            held = {bytes_of({second: state[second]})[second] for state in before.values()}
            assert len(held) == 1
    assert strategy.rounds[2][2].assignment == strategy.rounds[1][2].assignment
