"""Noise that clients add to their data: how much, for good, and what a node insists on."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import to_unit
from huscf_flwr.data.draws import seeded
from huscf_flwr.data.local_noise import LocalNoise
from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state, to_arrays
from tests.conftest import images, tiny, write_npz

DRAWS = seeded(0, 0)


def test_noise_is_as_large_as_it_says_and_each_image_keeps_its_own() -> None:
    data = images(400)
    noise = LocalNoise(0.5, 1.0, 3)
    clean = to_unit(data.images)
    noisy, said = noise.for_good(clean, data.labels, DRAWS)
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.02)
    assert abs(float((noisy - clean).mean())) < 0.01
    kept = math.e / (math.e + 2)
    assert float((said == data.labels).float().mean()) == pytest.approx(kept, abs=0.07)
    assert said[data.labels == 0].unique().tolist() == [0, 1, 2]
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    again = noise.for_good(clean[order], data.labels[order], DRAWS)
    assert torch.equal(again[0], noisy[order]) and torch.equal(again[1], said[order])


def test_a_label_changes_the_odds_of_what_is_said_by_no_more_than_epsilon() -> None:
    noise = LocalNoise(0.0, 0.7, 4)
    other = (1 - noise.kept) / 3
    assert noise.kept / other == pytest.approx(math.exp(0.7))
    random = np.random.default_rng(0)
    said = noise.of_labels(torch.full((60_000,), 2), random)
    shares = np.bincount(said.numpy(), minlength=4) / 60_000
    assert shares == pytest.approx([other, other, noise.kept, other], abs=0.01)


def test_shares_of_labels_are_found_again() -> None:
    noise = LocalNoise(0.0, 1.0, 3)
    labels = torch.from_numpy(np.random.default_rng(0).choice(3, 50_000, p=[0.7, 0.3, 0.0]))
    said = noise.of_labels(labels, np.random.default_rng(1))
    assert noise.true_shares(said) == pytest.approx([0.7, 0.3, 0.0], abs=0.03)
    assert LocalNoise(1.0, 0.0, 3).true_shares(torch.tensor([0, 0, 2])) == pytest.approx(
        [2 / 3, 0, 1 / 3]
    )


def test_versions_of_an_image_tell_no_more_than_the_one_with_least_noise() -> None:
    """What is added to it on the way to more noise has nothing to do with what it had."""
    data = images(400)
    clean = to_unit(data.images)
    little, more = (LocalNoise(s, 0.0, 3).for_good(clean, data.labels, DRAWS)[0] for s in (1, 2))
    first, added = (little - clean).flatten(), (more - little).flatten()
    assert added.std() == pytest.approx(math.sqrt(3), rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([first, added]))[0, 1])) < 0.01


def test_what_is_said_of_a_label_with_less_epsilon_is_made_of_what_is_said_with_more() -> None:
    count, two, one = 20_000, LocalNoise(0.0, 2.0, 3), LocalNoise(0.0, 1.0, 3)
    clean = torch.arange(count).float().view(-1, 1, 1, 1) / count
    labels = torch.arange(count) % 3
    said, later = (noise.for_good(clean, labels, DRAWS)[1] for noise in (two, one))
    for noise, found in ((two, said), (one, later)):
        assert float((found == labels).float().mean()) == pytest.approx(noise.kept, abs=0.01)
    keeps = (one.kept - 1 / 3) / (two.kept - 1 / 3)  # of what was said, whatever the label is
    for right in (True, False):
        of_these = (said == labels) == right
        share = float((later == said)[of_these].float().mean())
        assert share == pytest.approx(keeps + (1 - keeps) / 3, abs=0.02)


def client(tmp_path: Path, config: RunConfig, **node: float | str) -> WholeGANClient:
    data = str(write_npz(tmp_path / "own.npz", images(30)))
    found: dict[str, float | str] = {"data": data, **node}
    return WholeGANClient(Context(1, 7, found, RecordDict(), config.as_dict()))  # type: ignore[arg-type]


def test_nothing_but_the_noisy_version_is_trained_on(tmp_path: Path) -> None:
    config = tiny(image_noise=0.5, label_epsilon=1.0)
    one = client(tmp_path, config)
    parameters = to_arrays(initial_state(config.net_spec, 0))
    seen: dict[int, bytes] = {}
    for round_ in (1, 2):
        told = {"client": 0, "round": round_, "iterations": 6, "iterations-before": 6 * round_}
        stream, part = one.stream(told), one.begin(parameters, told)
        for index in range(6):
            batch = part.batches(index)
            for place, image in zip(stream.places(6 * round_ + index), batch.images, strict=True):
                value = image.numpy().tobytes()
                assert seen.setdefault(int(place), value) == value
            fake = torch.zeros_like(batch.images)
            assert batch.shown(fake).std() == pytest.approx(0.5, rel=0.2)
    assert len(seen) == len(stream)


@pytest.mark.parametrize(
    ("node", "run", "message"),
    [
        ({"image-noise": 0.5}, {"image_noise": 0.375}, "insists on image-noise of 0.5 or more"),
        ({"label-epsilon": 1.0}, {}, "insists on a label-epsilon of 1 or less; this run has none"),
        ({"label-epsilon": 1}, {"label_epsilon": 2.0}, "of 1 or less; this run has 2"),
        ({"image-noise": "much"}, {}, "image-noise='much' in its --node-config: must be"),
        ({"image-noise": 0.5, "label-epsilon": 1}, {"image_noise": 0.5, "label_epsilon": 1.0}, ""),
    ],
)
def test_a_node_takes_part_only_as_protected_as_it_insists(
    node: dict[str, float | str], run: dict[str, float], message: str, tmp_path: Path
) -> None:
    config = tiny(**run)
    one = client(tmp_path, config, **node)
    error = one.get_properties({}).get("error")
    assert (message in str(error)) if message else error is None
    parameters, told = to_arrays(initial_state(config.net_spec, 0)), {"client": 0, "round": 1}
    for ask in (
        lambda: one.begin(parameters, {**told, "iterations": 1}),
        lambda: one.evaluate([], {**told, "probe": 0}),
    ):
        if message:
            with pytest.raises(RuntimeError, match="client 0: UserError: ") as raised:
                ask()
            assert message in str(raised.value)


def test_a_device_shows_its_images_with_noise_in_one_format_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "fresh"))
    noisy = {"image_noise": 0.5}
    assert "error" not in client(tmp_path, tiny(**noisy)).get_properties({})
    larger = client(tmp_path, tiny(**noisy, image_size=20)).get_properties({})
    assert "shown with noise as 16 pixels, 1 channels, and would be shown once more as 20" in str(
        larger["error"]
    )
    assert "error" not in client(tmp_path, tiny(image_size=20)).get_properties({})


def test_scores_of_images_without_noise_do_not_leave_a_device(tmp_path: Path) -> None:
    one = client(tmp_path, tiny(image_noise=0.5))
    with pytest.raises(RuntimeError, match="scores would be of its images without noise"):
        one.evaluate([], {"client": 0, "utility": False})
    insisting = client(tmp_path, tiny(), **{"image-noise": 0.5})
    with pytest.raises(RuntimeError, match="insists on image-noise of"):
        insisting.evaluate([], {"client": 0, "utility": False})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_noise": 0.3}, "image-noise=0.3: must be a multiple of 0.125"),
        ({"label_epsilon": 8.25}, "label-epsilon=8.25: must be a multiple of 0.25, and 8 at most"),
        ({"label_epsilon": 0.1}, "label-epsilon=0.1: must be a multiple"),
    ],
)
def test_levels_are_steps(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig(**settings)  # type: ignore[arg-type]


def test_methods_that_hand_clients_images_do_without() -> None:
    with pytest.raises(UserError, match="strategy=mdgan: has no image-noise or label-epsilon"):
        RunConfig(strategy="mdgan", image_noise=0.5)
