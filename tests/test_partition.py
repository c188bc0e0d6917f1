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
    LabelSkew,
    client_data,
    label_counts,
    parts,
    skewed_parts,
)
from huscf_flwr.data.sources import Source
from huscf_flwr.errors import UserError

FORMAT = ImageFormat(16, 1, 3)


GREY = ImageFormat(16, 1, 10)


def settings(*sources: Source, partition: str = "iid", seed: int = 0) -> DataSettings:
    return DataSettings(sources, GREY, partition, 0.5, seed, 0)


BALANCED = np.repeat(np.arange(10), 600)
SIXTY_THOUSAND = np.repeat(np.arange(10), 6000)


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
    ("partition", "lacking"),
    [
        ("non-iid", {0: 0.25 / 0.75, 2: 0.3 / 0.75, 3: 0.1 / 0.75, 4: 0.1 / 0.75}),
        ("highly-non-iid", {2: 0.4, 3: 0.6}),
    ],
)
def test_skewed_parts_lack_labels_by_the_papers_odds(
    partition: str, lacking: dict[int, float]
) -> None:
    counts = dealt(partition, 100, labels=SIXTY_THOUSAND)
    numbers = Counter((counts == 0).sum(axis=1).tolist())
    assert set(numbers) == set(lacking)
    for number, odds in lacking.items():
        assert abs(numbers[number] / 100 - odds) < 0.13
    for client in counts:  # what a client has it has evenly, but for chance
        own = client[client > 0]
        assert (abs(own - own.mean()) < 5 * own.mean() ** 0.5).all()


@pytest.mark.parametrize(
    ("partition", "sizes"),
    [
        ("iid", {600: 50}),
        ("non-iid", {600: 35, 400: 15}),
        ("highly-non-iid", {600: 25, 200: 15, 100: 10}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_large_shares_fill_the_papers_limits(
    partition: str, sizes: dict[int, int], seed: int
) -> None:
    """Two domains for 100 clients: of 1,200 images, 600 are left whatever labels are lacking."""
    counts = dealt(partition, 50, seed, SIXTY_THOUSAND, most=600)
    assert Counter(counts.sum(axis=1).tolist()) == sizes


def test_missing_labels_leave_clients_of_one_domain_below_the_limit() -> None:
    """One domain for 100 clients: a share is as large as the limit."""
    left = {0: 600, 2: 480, 3: 420, 4: 360}
    totals = []
    for seed in range(20):
        counts = dealt("non-iid", 100, seed, SIXTY_THOUSAND, most=600)
        sizes, lacking = counts.sum(axis=1), (counts == 0).sum(axis=1)
        reduced = 0
        for size, number in zip(sizes.tolist(), lacking.tolist(), strict=True):
            if number == 0:
                assert size in (600, 400)
            else:  # five standard deviations of what chance leaves a client of its share
                assert min(left[number] - 60, 400) <= size <= left[number] + 60
            reduced += size <= 400
        assert reduced >= 30
        totals.append(sizes.sum())
    # 70 clients with 600, 480, 420 or 360 images by the odds, and 30 with 400, 400, 400 or 360
    assert np.mean(totals) == pytest.approx(70 * 496 + 30 * (400 - 40 * 0.1 / 0.75), abs=500)


@pytest.mark.parametrize("clients", [2, 7, 10])
def test_lacking_labels_leave_an_equal_share_and_nothing_takes_their_place(clients: int) -> None:
    # The first thing drawn are the shares, for iid parts, too.
    shares = parts(BALANCED, clients, "iid", 0.5, np.random.default_rng(5))
    skew = LabelSkew({3: 1.0}, ())
    found = skewed_parts(BALANCED, clients, skew, np.random.default_rng(5), len(BALANCED))
    for share, part in zip(shares, found, strict=True):
        labels = np.unique(BALANCED[part])
        assert len(labels) == 7
        assert part.tolist() == share[np.isin(BALANCED[share], labels)].tolist()


def test_one_client_has_all_but_the_labels_that_it_lacks() -> None:
    for lacking, partition in ((2, 4800), (9, 600), (10, 600)):
        skew = LabelSkew({lacking: 1.0}, ())
        for most, size in ((0, partition), (500, 500)):
            (part,) = skewed_parts(BALANCED, 1, skew, np.random.default_rng(0), most)
            assert len(set(part.tolist())) == size


def test_sizes_are_parts_of_the_limit_rounded_down() -> None:
    skew = LabelSkew({0: 1.0}, ((0.26, 1 / 3), (0.5, 2 / 3)))
    for most, sizes in ((0, {1500: 1, 1000: 2, 500: 1}), (50, {50: 1, 33: 2, 16: 1})):
        found = skewed_parts(BALANCED, 4, skew, np.random.default_rng(0), most)
        assert Counter(map(len, found)) == sizes


def test_which_clients_are_reduced_is_drawn() -> None:
    skew = LabelSkew({0: 1.0}, ((0.25, 1 / 3),))
    found = [skewed_parts(BALANCED, 4, skew, np.random.default_rng(seed)) for seed in range(30)]
    assert {int(np.argmin([len(part) for part in dealt])) for dealt in found} == set(range(4))


@pytest.mark.parametrize("partition", ["non-iid", "highly-non-iid"])
@pytest.mark.parametrize("clients", [2, 3, 4, 10])
def test_every_class_is_somewhere_and_enough_clients_are_reduced(
    partition: str, clients: int
) -> None:
    limit = 6000 // clients
    for seed in range(30):
        counts = dealt(partition, clients, seed)
        assert counts.sum(axis=0).min() > 0
        sizes = counts.sum(axis=1)
        assert sizes.max() <= limit
        smaller = 0
        for fraction, part in sorted(SKEWS[partition].reduced, key=lambda pair: pair[1]):
            smaller += round(fraction * clients)
            assert (sizes <= int(part * limit)).sum() >= smaller


def test_clients_of_a_small_domain_have_enough_images() -> None:
    """Of 1,438 images a quarter is 359: a sixth of that is 59, a third 119."""
    for seed in range(10):
        counts = label_counts(
            settings(Source("digits"), partition="highly-non-iid", seed=seed), 4
        ).sum(axis=1)
        small, medium, *others = sorted(counts.tolist())
        assert (small, medium) == (59, 119)
        assert all(200 < size < 330 for size in others)


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


def test_a_client_that_has_nothing_left_is_named(tmp_path: Path) -> None:
    """Of 20 training images four clients have 5 each, and two of them a sixth and a third."""
    own = Source("own", str(write_npz(tmp_path / "own.npz", images(27))), "files")
    small = settings(own, partition="highly-non-iid")
    sizes = label_counts(small, 4).sum(axis=1)
    assert {0, 1} <= set(sizes.tolist())
    for client, size in enumerate(sizes):
        if size < 2:
            with pytest.raises(UserError, match=f"client {client} has {size} training images"):
                client_data(small, client=client, clients=4)
