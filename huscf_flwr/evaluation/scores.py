"""The numbers that a generator got, and what one has to know to compare them with others'."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

CHEAP_SCORES = ("image_score", "frechet_distance_classifier", "kernel_distance_classifier")
"""Names of what is computed during training, in the order of `Scores.values`."""
REAL = "_real"
"""Added to the name of a score, it names what real images get, see `Score.real`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of a generator.

    Attributes
    ----------
    name: of the metric and, for distances, of the features; unique in `Scores`.
    value: the score.
    real: what real images get in place of generated ones, which is what a generator can hope for.
        For distances as many training images, for the image score the held-out ones, in groups
        as large as those of the generated.
    extractor: the net that saw the images.
    resize: what was done to their size before.
    n_generated: generated images.
    n_real: held-out real images.
    seed: of everything random in it.
    recipe: name of the `Recipe`.
    stabilised: whether there were too few images for the plain formula, see `frechet_distance`.
    """

    name: str
    value: float
    real: float
    extractor: str
    resize: str
    n_generated: int
    n_real: int
    seed: int
    recipe: str
    stabilised: bool = False

    def as_dict(self) -> dict[str, Any]:
        """All but the name."""
        found = asdict(self)
        del found["name"]
        return found


@dataclass(frozen=True, kw_only=True)
class Utility:
    """What a classifier trained on generated images only is worth on held-out real ones.

    Attributes
    ----------
    metrics: the five of `classification_metrics` by name.
    real: the same of the classifier that was trained on the real training images.
    confusion: how many held-out images of each class (rows) are taken for each (columns).
    n_generated, n_real, seed, recipe: see `Score`.
    """

    metrics: Mapping[str, float]
    real: Mapping[str, float]
    confusion: Sequence[Sequence[int]]
    n_generated: int
    n_real: int
    seed: int
    recipe: str


@dataclass(frozen=True)
class Scores:
    """All that a generator got against one set of real images.

    Attributes
    ----------
    image: image score.
    frechet, kernel: distances.
    neighbours: those of `prdc`, on the same features; none during training.
    utility: None where it was not due, or there is one class only.
    """

    image: Score
    frechet: Score
    kernel: Score
    neighbours: tuple[Score, ...] = ()
    utility: Utility | None = None

    @property
    def _main(self) -> tuple[Score, Score, Score]:
        return self.image, self.frechet, self.kernel

    def values(self) -> dict[str, float]:
        """Values by name of what is scored during training, too."""
        return {score.name: score.value for score in self._main}

    def on_real(self) -> dict[str, float]:
        """What real images get, as `<name>_real`, of the same scores."""
        return {score.name + REAL: score.real for score in self._main}

    def as_dict(self) -> dict[str, Any]:
        """Values by name; `utility` and its `confusion_matrix`, where it was due; and `details` on
        each value by its name.
        """
        every = (*self._main, *self.neighbours)
        found: dict[str, Any] = {score.name: score.value for score in every}
        details = {score.name: score.as_dict() for score in every}
        if self.utility is not None:
            details["utility"] = asdict(self.utility)
            found["utility"] = details["utility"].pop("metrics")
            found["confusion_matrix"] = details["utility"].pop("confusion")
        return {**found, "details": details}

    def lines(self) -> list[str]:
        """A table of all of it."""
        table = [f"{'':<36} {'generated':>10} {'real':>10}"]
        table += [
            f"{score.name:<36} {score.value:>10.4g} {score.real:>10.4g}"
            + ("   stabilised" if score.stabilised else "")
            for score in (*self._main, *self.neighbours)
        ]
        if self.utility is not None:
            table += [
                f"{'utility: ' + name:<36} {value:>10.4f} {self.utility.real[name]:>10.4f}"
                for name, value in self.utility.metrics.items()
            ]
        distance = self.frechet
        return [
            *table,
            "",
            f"{self.image.n_generated} generated and {distance.n_real} held-out real images, seed "
            f"{distance.seed}; distances of {distance.n_generated}, on features of: "
            f"{distance.extractor}, resized: {distance.resize}",
        ]

    def __str__(self) -> str:
        features = " on classifier features" if self.frechet.name != "frechet_distance" else ""
        text = (
            f"image score {self.image.value:.2f} (real images: {self.image.real:.2f}), "
            f"Fréchet distance{features} {self.frechet.value:.3g} ({self.frechet.real:.3g})"
        )
        if self.utility is None:
            return text
        accuracy, real = self.utility.metrics["accuracy"], self.utility.real["accuracy"]
        return f"{text}, utility accuracy {accuracy:.3f} ({real:.3f})"
