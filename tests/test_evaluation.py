"""Scores: the metrics against numbers computed by hand, who computes them, and what they leave."""

import json
import threading
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
from huscf_flwr.evaluation.classifier import (
    Classifier,
    Dropout,
    Dropout2d,
    real_classifier,
    train_classifier,
)
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.evaluation.extractors import Extractor
from huscf_flwr.evaluation.prdc import PRDC
from huscf_flwr.evaluation.recipes import AUTHORS
from huscf_flwr.evaluation.scorer import Scorer
from huscf_flwr.evaluation.utility import classification_metrics
from huscf_flwr.nets import NetSpec, initial_state
from huscf_flwr.nets.generator import Generator
from huscf_flwr.system.cpu import side_by_side

pytestmark = pytest.mark.usefixtures("few_steps")
SPEC = NetSpec(image_size=16, channels=1, num_classes=3, width=2)
FORMAT = ImageFormat(16, 1, 3)


def generator(seed: int = 0) -> Generator:
    return Generator(SPEC, initial_state(SPEC, seed))


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


def test_one_class_has_no_utility_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    zeros = np.zeros(5, int)
    assert classification_metrics(zeros, zeros)["accuracy"] == 1
    assert not [str(warned.message) for warned in recwarn if "label" in str(warned.message)]
    data = images(30)
    one = LabelledImages(data.images, torch.zeros_like(data.labels))
    scores = Evaluator(Domain("one", one, one), 3, seed=0).full(generator(), 50)
    assert scores.utility is None and "utility" not in scores.as_dict()
    assert "utility" not in str(scores)


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

    def pixels(part: torch.Tensor) -> np.ndarray:
        return part.flatten(1)[:, :4].numpy()

    flat = Extractor("pixels", "", "none", pixels, pixels)
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
