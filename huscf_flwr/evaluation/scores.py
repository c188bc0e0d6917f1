"""The numbers that a generator got, and what one has to know to compare them with others'."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

CHEAP_SCORES = ("image_score", "frechet_distance_classifier", "kernel_distance_classifier")
"""Names of what is computed during training, in the order of `Scores.values`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of a generator.

    Attributes
    ----------
    name: of the metric and, for distances, of the features; unique in `Scores`.
    value: the score.
    extractor: the net that saw the images.
    resize: what was done to their size before.
    n_generated: generated images.
    n_real: held-out real images that they were compared with; for the image score, none.
    seed: of everything random in it.
    floor: of a distance: the same distance from real training images in place of generated ones,
        which is what a generator can hope for.
    n_floor: how many training images that was: n_generated, or all where there are fewer.
    stabilised: whether there were too few images for the plain formula, see `frechet_distance`.
    """

    name: str
    value: float
    extractor: str
    resize: str
    n_generated: int
    seed: int
    n_real: int = 0
    floor: float | None = None
    n_floor: int = 0
    stabilised: bool = False

    def as_dict(self) -> dict[str, Any]:
        """All but the name."""
        found = asdict(self)
        del found["name"]
        return found


@dataclass(frozen=True)
class Scores:
    """All that a generator got against one set of real images.

    Attributes
    ----------
    image: image score.
    frechet, kernel: distances.
    utility: the five metrics of `classification_metrics` by name, and accuracy_trained_on_real;
        None where it was not due.
    """

    image: Score
    frechet: Score
    kernel: Score
    utility: Mapping[str, float] | None = None

    @property
    def _all(self) -> tuple[Score, Score, Score]:
        return self.image, self.frechet, self.kernel

    def values(self) -> dict[str, float]:
        """Values by name of the score, without utility."""
        return {score.name: score.value for score in self._all}

    def floors(self) -> dict[str, float]:
        """Floors of the distances, as `<name>_floor`."""
        return {f"{s.name}_floor": s.floor for s in self._all if s.floor is not None}

    def as_dict(self) -> dict[str, Any]:
        """Values by name; `utility`, where it was due; and `details` on each value by its name."""
        details = {score.name: score.as_dict() for score in self._all}
        if self.utility is None:
            return {**self.values(), "details": details}
        same = ("n_generated", "n_real", "seed")
        details["utility"] = {key: details[self.frechet.name][key] for key in same}
        return {**self.values(), "utility": dict(self.utility), "details": details}

    def lines(self) -> list[str]:
        """A table of all of it."""
        table = [f"{self.image.name:<34} {self.image.value:>9.4g}"]
        for score in (self.frechet, self.kernel):
            table.append(
                f"{score.name:<34} {score.value:>9.4g}   real images: {score.floor:.4g} "
                f"(n = {score.n_floor})" + ("; stabilised" if score.stabilised else "")
            )
        for name, value in (self.utility or {}).items():
            table.append(f"{'utility: ' + name:<34} {value:>9.4f}")
        distance = self.frechet
        return [
            *table,
            "",
            f"{distance.n_generated} generated and {distance.n_real} real images, seed "
            f"{distance.seed}; distances on features of: {distance.extractor}, "
            f"resized: {distance.resize}",
        ]

    def __str__(self) -> str:
        features = " on classifier features" if self.frechet.name != "frechet_distance" else ""
        return (
            f"image score {self.image.value:.2f}, Fréchet distance{features} "
            f"{self.frechet.value:.3g} (real images: {self.frechet.floor:.3g})"
        )
