"""Partitions: which client gets which images of its domain."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, write_npz

from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.partition import (
    SKEWS,
    DataSettings,
    client_data,
    label_counts,
    parts,
    skewed_shares,
)
from huscf_flwr.data.sources import Source
from huscf_flwr.errors import UserError

FORMAT = ImageFormat(16, 1, 3)


GREY = ImageFormat(16, 1, 10)


def settings(*sources: Source, partition: str = "iid", seed: int = 0) -> DataSettings:
    return DataSettings(sources, GREY, partition, 0.5, seed, 0)


BALANCED = np.repeat(np.arange(10), 600)


def dealt(
    partition: str, clients: int, seed: int = 0, labels: np.ndarray = BALANCED, most: int = 0
) -> np.ndarray:
    """Label counts (clients, classes); checks that no image is dealt twice."""
    found = parts(labels, clients, partition, 0.5, np.random.default_rng(seed), most)
    everything = np.concatenate(found)
    assert len(found) == clients
    assert len(np.unique(everything)) == len(everything)
    return np.array([np.bincount(labels[part], minlength=10) for part in found])


def test_iid_parts_are_equal_and_have_all_labels() -> None:
    counts = dealt("iid", 7)
    assert counts.sum() == len(BALANCED)
    assert set(counts.sum(axis=1)) == {857, 858}
    assert counts.min() > 40


@pytest.mark.parametrize(
    ("partition", "lacking", "reduced"),
    [
        ("non-iid", {0: 0.25 / 0.75, 2: 0.3 / 0.75, 3: 0.1 / 0.75, 4: 0.1 / 0.75}, {2 / 3: 30}),
        ("highly-non-iid", {2: 0.4, 3: 0.6}, {1 / 6: 20, 1 / 3: 30}),
    ],
)
def test_skewed_parts_lack_labels_and_images_by_the_papers_odds(
    partition: str, lacking: dict[int, float], reduced: dict[float, int]
) -> None:
    counts = dealt(partition, 100, labels=np.repeat(np.arange(10), 6000))
    numbers = Counter((counts == 0).sum(axis=1).tolist())
    assert set(numbers) == set(lacking)
    for number, odds in lacking.items():
        assert abs(numbers[number] / 100 - odds) < 0.13
    sizes = counts.sum(axis=1)
    found = Counter(
        min((1, *reduced), key=lambda r: abs(r - size / sizes.max())) for size in sizes
    )
    assert found == {**reduced, 1: 100 - sum(reduced.values())}
    assert sizes.max() == pytest.approx(600, rel=0.02)  # an equal share, as in the paper
    for client in counts:  # what a client has it has evenly
        assert client[client > 0].max() - client[client > 0].min() <= 2


@pytest.mark.parametrize("partition", ["non-iid", "highly-non-iid"])
@pytest.mark.parametrize("clients", [2, 3, 4, 10])
def test_every_class_is_somewhere_and_sizes_have_their_ratio(partition: str, clients: int) -> None:
    for seed in range(30):
        counts = dealt(partition, clients, seed)
        assert counts.sum(axis=0).min() > 0
        sizes = np.sort(counts.sum(axis=1))[::-1]
        reduced = [part for share, part in SKEWS[partition].reduced
                   for _ in range(round(share * clients))]  # fmt: skip
        expected = sorted([1.0] * (clients - len(reduced)) + reduced, reverse=True)
        np.testing.assert_allclose(sizes / sizes[0], expected, atol=0.02)


@pytest.mark.parametrize(
    ("partition", "sizes"),
    [
        ("iid", {600: 50}),
        ("non-iid", {600: 35, 400: 15}),
        ("highly-non-iid", {600: 25, 200: 15, 100: 10}),
    ],
)
def test_a_limit_gives_the_papers_sizes(partition: str, sizes: dict[int, int]) -> None:
    """Two domains for 100 clients: an equal share of a domain is twice what a client gets."""
    counts = dealt(partition, 50, labels=np.repeat(np.arange(10), 6000), most=600)
    found = counts.sum(axis=1)
    assert found.max() <= 600
    assert Counter(min(sizes, key=lambda size: abs(size - n)) for n in found.tolist()) == sizes
    assert all(min(abs(size - n) for size in sizes) <= 5 for n in found)


def test_a_limit_leaves_out_images_of_any_class() -> None:
    free, limited = (dealt("dirichlet", 10, most=most) for most in (0, 300))
    sizes = free.sum(axis=1)
    np.testing.assert_array_equal(limited.sum(axis=1), np.minimum(sizes, 300))
    cut = free[sizes > 600]  # at most half of each is kept
    kept = limited[sizes > 600]
    assert len(cut) and (cut[cut > 100] > kept[cut > 100]).all() and (kept[cut > 100] > 0).all()


def test_few_classes_leave_each_client_one() -> None:
    for seed in range(20):
        counts = dealt("highly-non-iid", 3, seed, labels=np.arange(90) % 3)
        assert (counts.sum(axis=1) > 0).all()
        assert counts[:, :3].sum(axis=0).min() > 0


def test_shares_keep_a_domains_own_proportions() -> None:
    sizes = np.array([1000, 100, 10, 500])
    shares = skewed_shares(sizes, 5, SKEWS["non-iid"], np.random.default_rng(3), 1610)
    assert shares.sum(axis=0).max() <= 1 + 1e-12
    for client in shares:
        np.testing.assert_allclose(client[client > 0], client.max())


def test_dirichlet_parts_follow_alpha() -> None:
    def spread(alpha: float) -> float:
        found = parts(BALANCED, 10, "dirichlet", alpha, np.random.default_rng(0))
        assert sum(map(len, found)) == len(BALANCED)
        assert min(map(len, found)) >= 10
        return float(np.std([np.bincount(BALANCED[part], minlength=10) for part in found]) / 60)

    # The standard deviation of a share of Dirichlet(alpha) over n clients, times n.
    for alpha in (0.1, 1.0, 100.0):
        assert spread(alpha) == pytest.approx((9 / (10 * alpha + 1)) ** 0.5, rel=0.25)


def test_an_impossible_draw_says_what_to_change() -> None:
    with pytest.raises(UserError, match=r"raise dirichlet-alpha=0.001 or use fewer clients"):
        parts(BALANCED, 50, "dirichlet", 0.001, np.random.default_rng(0))


@pytest.mark.parametrize("partition", ["iid", "non-iid", "highly-non-iid", "dirichlet"])
def test_parts_follow_the_seed(partition: str) -> None:
    def found(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [part.tolist() for part in parts(BALANCED, 6, partition, 0.5, rng)]

    assert found(1) == found(1)
    assert found(1) != found(2)


def test_clients_share_their_domain_without_overlap(tmp_path: Path) -> None:
    data = images(27)
    data.images.view(27, -1)[:, 0] = torch.arange(27)  # a mark for every image
    own = Source("own", str(write_npz(tmp_path / "own.npz", data)), "files")
    found = [client_data(settings(own, Source("digits")), client=k, clients=6) for k in range(6)]
    assert [domain.name for domain, _ in found] == ["own", "digits"] * 3
    marks = [part.images.view(len(part), -1)[:, 0].tolist() for _, part in found[::2]]
    assert [len(part) for part in marks] == [7, 7, 7]
    assert len({mark for part in marks for mark in part}) == 21


def test_domains_are_dealt_independently() -> None:
    twins = (Source("digits"), Source("letters"))
    counts = label_counts(settings(*twins, partition="highly-non-iid"), 16)
    assert ((counts[::2] == 0) != (counts[1::2] == 0)).any()


@pytest.mark.parametrize("clients", [1, 5])
def test_label_counts_are_those_of_the_clients_data(clients: int) -> None:
    dealt = settings(Source("digits"), Source("letters"), partition="non-iid", seed=4)
    counts = label_counts(dealt, clients)
    assert counts.shape == (clients, 10)
    for client in range(clients):
        _, data = client_data(dealt, client=client, clients=clients)
        assert torch.bincount(data.labels, minlength=10).tolist() == counts[client].tolist()


def test_too_few_images_are_named(tmp_path: Path) -> None:
    own = Source("own", str(write_npz(tmp_path / "own.npz", images(6))), "files")
    with pytest.raises(UserError, match="client 2 has 1 training images; at least 2"):
        client_data(settings(own), client=2, clients=3)
