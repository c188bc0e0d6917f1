"""Noise that clients add to their data: how much, for good, and what a node insists on."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.discriminating import FedSplitGANClient, MDGANClient
from huscf_flwr.clients.mixing import MixingGANClient
from huscf_flwr.clients.secret import own_secret
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.clustering.probe import first_outputs
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages, to_unit
from huscf_flwr.data.draws import secretly, seeded
from huscf_flwr.data.local_noise import LocalNoise
from huscf_flwr.data.sources import read_domain
from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, PartialGAN, initial_state, state_names, to_arrays
from simulations.engine import Engine
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


def test_nothing_but_the_noisy_version_is_trained_on_and_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "fresh"))  # no other client 0 was here
    config = tiny(image_noise=0.5, label_epsilon=1.0)
    assert config.local_noise is not None
    one = client(tmp_path, config)
    data = images(30)
    clean = to_unit(data.images)
    noisy, said = config.local_noise.for_good(clean, data.labels, secretly(own_secret()))
    assert not torch.equal(said, data.labels)
    parameters = to_arrays(initial_state(config.net_spec, 0))
    seen = set()
    for round_ in (1, 2):
        told = {"client": 0, "round": round_, "iterations": 8, "iterations-before": 8 * round_}
        stream, part = one.stream(told), one.begin(parameters, told)
        for index in range(8):
            batch, places = part.batches(index), stream.places(8 * round_ + index)
            # Own files come in a random order, with all images: the noise says which is which.
            for place, image, label in zip(places, batch.images, batch.labels, strict=True):
                (at,) = (noisy == image).flatten(1).all(dim=1).nonzero().flatten().tolist()
                assert label == said[at]
                seen.add((int(place), at))
            assert batch.shown(torch.zeros_like(batch.images)).std() == pytest.approx(0.5, rel=0.2)
    assert len(seen) == len(stream) == 30
    names = state_names(config.net_spec, {DISC: [0]})
    state = {name: initial_state(config.net_spec, 0)[name] for name in names}
    _, count, metrics = one.evaluate(to_arrays(state), {"client": 0, "probe": 1})
    outputs = torch.from_numpy(np.load(io.BytesIO(metrics["outputs"])))  # type: ignore[arg-type]
    nets = PartialGAN(config.net_spec, state, gen=(), disc=[0]).eval()
    of_noisy, of_clean = (first_outputs(nets, of, 3) for of in (noisy, clean))
    assert count == 30
    assert torch.allclose(outputs.sum(dim=0), of_noisy.sum(dim=0), atol=1e-4)
    assert not torch.allclose(outputs.sum(dim=0), of_clean.sum(dim=0), atol=1e-2)


@pytest.mark.parametrize(
    ("node", "run", "message"),
    [
        ({"image-epsilon": 2400}, {}, "image-epsilon of 2400 or less; this run has none"),
        (
            {"image-epsilon": 2400},
            {"image_noise": 0.375},
            "image-epsilon of 2400 or less; this run has 4004",
        ),
        (  # averaged over so many pixels, noise would be gone
            {"image-epsilon": 2400},
            {"image_noise": 1.0, "image_size": 64, "channels": 3},
            "this run has 2.552e+04",
        ),
        ({"label-epsilon": 1.0}, {}, "label-epsilon of 1 or less; this run has none"),
        ({"label-epsilon": 1}, {"label_epsilon": 2.0}, "of 1 or less; this run has 2"),
        ({"image-epsilon": "little"}, {}, "image-epsilon='little' in its --node-config: must be"),
        ({"image_noise": 1.0}, {}, "image_noise in its --node-config: a node can insist on"),
        (
            {"image-epsilon": 2400, "label-epsilon": 1},
            {"image_noise": 0.5, "label_epsilon": 1.0},
            "",
        ),
    ],
)
def test_a_node_takes_part_only_as_protected_as_it_insists(
    node: dict[str, float | str],
    run: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "fresh"))
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
    told = {"client": 0}
    larger = tiny(image_noise=0.5, image_size=20)
    assert "error" not in client(tmp_path, larger).get_properties({})  # nothing is shown by that
    client(tmp_path, tiny(image_noise=0.5)).stream(told)
    for other in (larger, tiny(image_noise=0.5, num_classes=4)):
        one = client(tmp_path, other)
        shown = (
            "shown with noise as 16 pixels, 1 channels, 3 classes, and would be shown once more"
        )
        assert shown in str(one.get_properties({})["error"])
        with pytest.raises(UserError, match="would be shown once more"):
            one.stream(told)
    client(tmp_path, tiny(image_size=20)).stream(told)


def test_scores_of_images_without_noise_do_not_leave_a_device(tmp_path: Path) -> None:
    one = client(tmp_path, tiny(image_noise=0.5))
    with pytest.raises(RuntimeError, match="scores would be of its images without noise"):
        one.evaluate([], {"client": 0, "utility": False})
    insisting = client(tmp_path, tiny(), **{"image-epsilon": 2400})
    with pytest.raises(RuntimeError, match="insists on image-epsilon of"):
        insisting.evaluate([], {"client": 0, "utility": False})


def test_how_many_images_a_device_has_says_nothing_of_labels(tmp_path: Path) -> None:
    data = images(30)
    for labels in (data.labels, torch.zeros(30, dtype=torch.long)):
        path = write_npz(tmp_path / "own.npz", LabelledImages(data.images, labels))
        context = Context(1, 7, {"data": str(path)}, RecordDict(), tiny(image_noise=1.0).as_dict())
        read_domain.cache_clear()
        assert WholeGANClient(context).get_properties({})["size"] == 30


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


@pytest.mark.parametrize("client_class", [MDGANClient, FedSplitGANClient, MixingGANClient])
def test_methods_that_hand_clients_images_do_without(
    client_class: type[GANClient], tmp_path: Path
) -> None:
    config = tiny(strategy="mine:MDGAN", image_noise=0.5)
    context = Context(
        1, 7, client(tmp_path, config).context.node_config, RecordDict(), config.as_dict()
    )
    error = client_class(context).get_properties({})["error"]
    assert error == "strategy=mine:MDGAN: has no image-noise or label-epsilon"


def test_runs_of_these_end_with_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image-noise or label-epsilon"):
        Engine(tiny(strategy="mdgan", domains="digits", num_classes=10, image_noise=0.5,
                    output_dir="run"), str(tmp_path)).run()  # fmt: skip
