"""Clusters, weights and averages against numbers computed by hand."""

import math

import numpy as np
import pytest
import torch

from huscf_flwr.clustering.averages import aggregate_shared, weighted_average
from huscf_flwr.clustering.clusters import cluster, grouped, keep_labels, placed
from huscf_flwr.clustering.kld_weights import divergences, position_distributions, weights
from huscf_flwr.clustering.neighbours import find_clusters, neighbour_counts
from huscf_flwr.defences.moves import bounded, moves, too_far, usual_moves


def test_positions_are_a_softmax_per_channel() -> None:
    activation = np.array([[[0.0, math.log(3)]], [[5.0, 5.0]]])  # (2 channels, 1, 2)
    assert position_distributions(activation) == pytest.approx(
        np.array([[0.25, 0.75], [0.5, 0.5]])
    )


def test_divergence_of_two_clients() -> None:
    """P_0 = (1/4, 3/4), P_1 = (1/2, 1/2); each one's Q is the other's P."""
    activations = np.array([[[[0.0, math.log(3)]]], [[[1.0, 1.0]]]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergences(activations) == pytest.approx([first, second], rel=1e-6)


def test_divergence_is_to_the_mean_of_the_others() -> None:
    """The odd one out of three diverges most; channels are averaged; alone it is zero."""
    same, odd = [[0.0, 0.0]], [[0.0, math.log(3)]]
    klds = divergences(np.array([[same, same], [same, same], [odd, same]]))
    q_of_same = (0.5 + 0.25) / 2
    expected_same = (
        q_of_same * math.log(q_of_same / 0.5) + (1 - q_of_same) * math.log((1 - q_of_same) / 0.5)
    ) / 2
    expected_odd = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert klds == pytest.approx([expected_same, expected_same, expected_odd], rel=1e-6)
    assert divergences(np.array([[odd]])).tolist() == [0.0]


def test_weights_fall_with_divergence() -> None:
    found = weights(np.array([100.0, 300.0]), np.array([0.0, math.log(3)]), beta=1.0)
    assert found == pytest.approx([0.5, 0.5])
    by_size = weights(np.array([100.0, 300.0]), np.array([0.0, 9.0]), beta=0.0)
    assert by_size == pytest.approx([0.25, 0.75])
    far = weights(np.array([1.0, 1.0]), np.array([1000.0, 1000.0]), beta=150.0)
    assert far == pytest.approx([0.5, 0.5])


def _groups(centres: int, spread: float) -> np.ndarray:
    random = np.random.default_rng(0)
    means = random.standard_normal((centres, 1, 4, 2, 2))
    noise = random.standard_normal((centres, 4, 4, 2, 2))
    return (means + spread * noise).reshape(-1, 4, 2, 2)


def _images(clients: list[list[float]], count: int = 30) -> list[np.ndarray]:
    """Activations of single images: client by client, so many around each of these places."""
    random = np.random.default_rng(0)
    return [
        np.concatenate([place + random.standard_normal((count, 1, 2, 2)) for place in places])
        for places in clients
    ]


def test_neighbours_of_three_clients_by_hand() -> None:
    """Two clients with two images each beside each other, and a third with one, far away.

    Of an image, the three nearest of others count a third each; there are 3, 3 and 4 of them.
    """
    one, other, lone = (np.array(values).reshape(-1, 1) for values in ([0, 1], [0.4, 1.4], [50]))
    found, sizes = neighbour_counts([one, other, lone])
    assert found == pytest.approx(
        np.array([[0, 4 / 3, 2 / 3], [4 / 3, 0, 2 / 3], [1 / 3, 2 / 3, 0]])
    )
    assert sizes.tolist() == [2, 2, 1]


@pytest.mark.parametrize("domains", [1, 2, 3, 12])
def test_clusters_are_found_however_many(domains: int) -> None:
    clients = _images([[50.0 * domain] for _ in range(3) for domain in range(domains)])
    assert find_clusters(clients).tolist() == [*range(domains)] * 3


def test_a_hundred_clients_with_few_images_each() -> None:
    random = np.random.default_rng(0)
    clients = [random.standard_normal((32, 64)) + 40.0 * (k % 5) for k in range(100)]
    assert find_clusters(clients).tolist() == [0, 1, 2, 3, 4] * 20


def test_unequal_shares_of_one_domain_are_one_cluster() -> None:
    """Four classes far apart, of which each client has two or three."""
    shares = [[0.0, 50.0], [50.0, 100.0], [100.0, 150.0, 0.0], [150.0, 50.0]]
    assert find_clusters(_images(shares)).tolist() == [0] * 4


def test_classes_that_find_neighbours_in_another_domain_only() -> None:
    """Four domains of two clients; a third of one's images is near another domain's.

    By chance among all, these would be many.
    """
    clients = _images([[50.0 * domain] for _ in range(2) for domain in range(4)])
    clients[0][:10] = clients[1][:10] + 0.01
    assert find_clusters(clients).tolist() == [0, 1, 2, 3] * 2


def test_a_lone_client_of_another_domain_is_a_cluster() -> None:
    assert find_clusters(_images([[0.0], [0.0], [50.0], [0.0]])).tolist() == [0, 0, 1, 0]


def test_the_same_image_again_is_no_more_evidence() -> None:
    """Clients with fewer images than a batch have some of them several times."""
    few = _images([[0.0], [0.0], [0.0]], count=6)
    again = [np.repeat(few[0], 5, axis=0), *few[1:]]
    assert neighbour_counts(again)[0] == pytest.approx(neighbour_counts(few)[0])
    assert find_clusters([np.zeros((4, 2)) for _ in range(3)]).tolist() == [0] * 3
    assert find_clusters(few[:1]).tolist() == [0]


def test_a_given_number_of_clusters() -> None:
    assert cluster(_groups(2, 0.1), 2, seed=0).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="9 clusters of 8 clients"):
        cluster(_groups(2, 0.1), 9, seed=0)


def test_averages_keep_integers_whole() -> None:
    one = {"w": torch.tensor([1.0, 2.0]), "num_batches_tracked": torch.tensor(3)}
    two = {"w": torch.tensor([5.0, 6.0]), "num_batches_tracked": torch.tensor(7)}
    found = weighted_average([one, two], [0.25, 0.75])
    assert found["w"].tolist() == [4.0, 5.0]
    assert (found["num_batches_tracked"].item(), found["num_batches_tracked"].dtype) == (
        7,
        torch.int64,
    )


def test_blocks_average_over_versions() -> None:
    """Three blocks; client 0 holds a and b, client 1 only a, client 2 (another cluster) only a."""

    def state(**values: float) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value) for name, value in values.items()}

    server = state(b=10.0, c=100.0)
    clients = {0: state(a=1.0, b=20.0), 1: state(a=3.0), 2: state(a=7.0)}
    inside = {0: 0.5, 1: 0.5, 2: 1.0}
    overall = {0: 0.2, 1: 0.3, 2: 0.5}
    new_server, models = aggregate_shared(server, clients, {0: [0, 1], 1: [2]}, inside, overall)
    assert new_server["b"].item() == pytest.approx(0.2 * 20 + 0.8 * 10)
    assert new_server["c"].item() == pytest.approx(100)
    assert models[0]["a"].item() == pytest.approx(2)
    assert models[0]["b"].item() == pytest.approx(15)  # the cluster's own average of both versions
    assert models[1]["a"].item() == pytest.approx(7)
    assert models[1]["b"].item() == pytest.approx(12)  # nobody in it holds b: the server's new one
    assert models[0].keys() == models[1].keys() == {"a", "b", "c"}


def test_clusters_keep_their_numbers() -> None:
    """Client 0 is missing, so that K-means names the others' clusters the other way round."""
    old = {0: 0, 1: 1, 2: 0, 3: 1}
    assert keep_labels({1: 0, 2: 1, 3: 0}, old) == {1: 1, 2: 0, 3: 1}
    assert keep_labels({0: 0, 1: 1, 2: 0, 3: 1}, {0: 0, 1: 0, 2: 0, 3: 0}) == old
    assert keep_labels({7: 0, 8: 1}, {}) == {7: 0, 8: 1}


def test_groups_are_sorted() -> None:
    assert grouped({4: 1, 0: 0, 2: 1}) == {0: [0], 1: [2, 4]}


def test_new_clients_join_and_others_stay() -> None:
    """Even where the others would now be grouped otherwise."""
    before = {0: 0, 1: 0, 2: 3, 3: 3, 4: 3}
    found = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 9, 7: 8, 8: 0}
    assert placed(found, before) == {5: 3, 8: 0, 7: 1, 6: 2}
    assert placed({4: 0, 7: 1, 8: 0}, {}) == {4: 0, 8: 0, 7: 1}


# Outliers


def _moved(by: float, statistics: float = 0.1) -> dict[str, torch.Tensor]:
    return {
        "gen.0.layers.0.weight": torch.full((4, 2), by),
        "gen.0.layers.1.running_mean": torch.full((4,), statistics),
        "gen.0.layers.1.num_batches_tracked": torch.tensor(7),
    }


def test_who_moves_too_far_is_brought_back_or_named() -> None:
    """Against the median of all who hold a block; by hand, from where all begin at zero."""
    start = _moved(0.0, 0.0)
    states = [_moved(0.1), _moved(-0.12), _moved(0.08), _moved(0.5), _moved(1e6), _moved(0.1, 9.0)]
    moved = [moves(start, state) for state in states]
    assert moved[1] == pytest.approx({"gen.0": 0.12, "gen.0 statistics": 0.1})
    usual = usual_moves(moved)
    assert usual == pytest.approx({"gen.0": 0.11, "gen.0 statistics": 0.1})
    assert [too_far(of_client, usual) is not None for of_client in moved] == [False] * 4 + [
        True
    ] * 2
    assert too_far(moved[4], usual) == "moved gen.0 9.09e+06 times as far as is usual"
    assert "gen.0 statistics 90 times" in str(too_far(moved[5], usual))
    for state in states[:3]:
        assert bounded(start, state, moves(start, state), usual) is state  # nothing is changed
    cut = bounded(start, states[3], moved[3], usual)
    assert torch.allclose(cut["gen.0.layers.0.weight"], torch.full((4, 2), 0.22))
    assert torch.equal(
        cut["gen.0.layers.1.running_mean"], states[3]["gen.0.layers.1.running_mean"]
    )
    assert usual_moves(moved[:2]) == {}  # of two, nobody knows who is right
