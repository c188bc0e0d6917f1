"""The metrics against numbers computed by hand."""

import math

import numpy as np
import pytest
import torch

from huscf_flwr.evaluation.distances import frechet_distance, kernel_distance
from huscf_flwr.evaluation.image_score import image_score
from huscf_flwr.evaluation.prdc import prdc
from huscf_flwr.evaluation.recovery import cluster_recovery
from huscf_flwr.evaluation.utility import classification_metrics, confusion_counts


def test_image_score() -> None:
    sure = torch.eye(4).repeat(5, 1)
    assert image_score(sure, 20) == pytest.approx(4.0, rel=1e-6)
    assert image_score(torch.full((20, 4), 0.25), 20) == pytest.approx(1.0)
    assert image_score(torch.eye(4)[:1].repeat(20, 1), 20) == pytest.approx(1.0)
    half = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    kl = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert image_score(half, 2) == pytest.approx(math.exp(kl))
    # A group of classes 0 to 3, one of 0 and 1, twice each, and one left over.
    three = torch.cat([torch.eye(4), torch.eye(4)[[0, 1, 0, 1, 3]]])
    assert image_score(three, 4) == pytest.approx((4 + 2) / 2)


def test_cluster_recovery() -> None:
    assert cluster_recovery(["x", "y", "x", "y"], [3, 1, 3, 1]) == 1.0
    assert cluster_recovery(["x", "y", "x", "y"], [0, 0, 0, 0]) == 0.0


def test_the_five_metrics_of_a_confusion_matrix() -> None:
    """Rows are true, columns predicted: [[3, 1, 0], [1, 2, 1], [0, 0, 2]]."""
    true = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 0, 1, 1, 2, 2, 2])
    f1 = [2 * p * r / (p + r) for p, r in ((3 / 4, 3 / 4), (2 / 3, 2 / 4), (2 / 3, 1))]
    assert confusion_counts(true, predicted, 4) == [
        *([3, 1, 0, 0], [1, 2, 1, 0], [0, 0, 2, 0]),
        [0, 0, 0, 0],  # a class that does not occur
    ]
    assert classification_metrics(true, predicted) == pytest.approx(
        {
            "accuracy": 7 / 10,
            "precision": (3 / 4 + 2 / 3 + 2 / 3) / 3,
            "recall": (3 / 4 + 2 / 4 + 1) / 3,
            "f1": sum(f1) / 3,
            "fpr": (1 / 6 + 1 / 6 + 1 / 8) / 3,
        }
    )


def test_metrics_of_classes_that_do_not_occur() -> None:
    """Class 2 is only predicted: it counts as a wrong answer, not as a class with recall 0."""
    found = classification_metrics(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]))
    assert found == pytest.approx(
        {"accuracy": 0.75, "precision": 1.0, "recall": 0.75, "f1": 5 / 6, "fpr": 0.0}
    )
    assert classification_metrics(np.array([1]), np.array([1]))["fpr"] == 0.0


def _exact(mean: float, variances: list[float], count: int, seed: int) -> np.ndarray:
    """Features whose sample mean and covariance are exactly these."""
    raw = np.random.default_rng(seed).standard_normal((count, len(variances)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white * np.sqrt(variances) + mean


def test_frechet_distance_of_known_gaussians() -> None:
    """(3 - 1)^2 for each of two features, and (sqrt(4) - sqrt(1))^2 + (sqrt(9) - sqrt(1))^2."""
    one, other = _exact(1, [1, 1], 50, 0), _exact(3, [4, 9], 80, 1)
    assert frechet_distance(one, other) == (pytest.approx(8 + 1 + 4), False)
    assert frechet_distance(one, one) == (pytest.approx(0, abs=1e-6), False)


def test_frechet_distance_is_a_number_whatever_the_features(
    capfd: pytest.CaptureFixture[str],
) -> None:
    random = np.random.default_rng(0)
    for one, other in (
        (random.random((5, 64)), random.random((7, 64))),
        (np.zeros((5, 3)), np.ones((5, 3))),
        (np.maximum(random.standard_normal((90, 64)), 0) * (np.arange(64) > 9),) * 2,
    ):
        distance, stabilised = frechet_distance(one, other)
        assert stabilised and math.isfinite(distance) and distance >= 0
    assert frechet_distance(np.zeros((5, 3)), np.ones((5, 3)))[0] == pytest.approx(3)
    assert capfd.readouterr().out == ""  # where a program reads JSON
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.full((5, 3), np.nan), np.ones((5, 3)))


def test_kernel_distance_by_hand() -> None:
    """k(0, 1) = 1 and k(1, 2) = 27 inside the sets; 1, 1, 8 and 27 between them."""
    one, other = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(one, other, seed=0) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kernel_distance_is_unbiased() -> None:
    """Sets of one kind get values on both sides of zero, whose mean is zero."""
    random = np.random.default_rng(0)
    pairs = [random.standard_normal((2, 40, 8)) for _ in range(60)]
    found = [kernel_distance(one, other, seed=0, subsets=1) for one, other in pairs]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))
    one, other = pairs[0]
    assert kernel_distance(one, other + 1, seed=0) > 10 * np.std(found)
    some = [kernel_distance(one, other, seed=s, subset_size=10) for s in (1, 1, 2)]
    assert some[0] == some[1] != some[2]


def test_prdc_by_hand() -> None:
    """On a line, with balls to the next neighbour but four.

    Real ones are 0 to 5: the balls of 0 and 5 reach 5 to each side, those of 1 and 4 reach 4, of 2
    and 3 reach 3. The ball of 0.5, whose farthest is 20, has all real ones in it.
    """
    real = np.arange(6.0)[:, None]
    generated = np.array([[0.5], [2.5], [7.0], [7.5], [9.0], [20.0]])
    precision, recall, density, coverage = prdc(real, generated)
    # 0.5 and 2.5 are in all balls; 7 and 7.5 in those of 4, to 8, and 5, to 10; 9 in the latter.
    inside = np.array([6, 6, 2, 2, 1, 0])
    assert precision == 5 / 6 and density == pytest.approx(inside.mean() / 5)
    assert coverage == 1 and recall == 1
    far = prdc(real, generated + 100)
    assert far == (0, 0, 0, 0)
    collapsed = prdc(real, np.full((6, 1), 2.5))
    assert collapsed[0] == 1 and collapsed[1] == 0 and collapsed[3] == 1
    assert prdc(real, real)[0] == prdc(real, real)[1] == 1


def test_prdc_compares_as_many_of_either_kind() -> None:
    random = np.random.default_rng(0)
    real, generated = random.standard_normal((400, 3)), random.standard_normal((900, 3))
    assert prdc(real, generated) == prdc(real, generated[:400]) == prdc(real, generated[:500])
    precision, recall, density, coverage = prdc(real, generated)
    assert min(precision, recall, coverage) > 0.85 and density == pytest.approx(1, abs=0.15)
    assert len(prdc(real[:2], generated)) == 4
