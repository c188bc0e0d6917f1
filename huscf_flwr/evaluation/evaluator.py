"""Everything about one set of real images that it takes to score generators against it."""

import functools
import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.batches import to_uint8, to_unit
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, Source, load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.classifier import Classifier, real_classifier, train_classifier
from huscf_flwr.evaluation.distances import frechet_distance, kernel_distance
from huscf_flwr.evaluation.extractors import Extractor, classifier_extractor
from huscf_flwr.evaluation.image_score import image_score
from huscf_flwr.evaluation.prdc import PRDC, prdc
from huscf_flwr.evaluation.recipes import STANDARD, Recipe
from huscf_flwr.evaluation.scores import Score, Scores, Utility
from huscf_flwr.evaluation.utility import classification_metrics, confusion_counts
from huscf_flwr.nets.generator import Generator

log = logging.getLogger(__name__)
CHEAP_IMAGES = 1000
"""Generated images that scores take during training."""


@dataclass(frozen=True)
class _Real:
    """The same for all generators: features (n, d) of images held out and of some to train on, and
    the scores of the latter."""

    held_out: np.ndarray
    image_score: float
    frechet_distance: float
    kernel_distance: float
    training: np.ndarray
    stabilised: bool

    @functools.cached_property
    def prdc(self) -> tuple[float, ...]:
        """Of training images."""
        return prdc(self.held_out, self.training)


class Evaluator:
    """Scores generators against one domain.

    The domain's training images teach the classifier, its held-out ones are what generated images
    are compared with.
    """

    def __init__(
        self, domain: Domain, num_classes: int, seed: int, recipe: Recipe = STANDARD
    ) -> None:
        """Nothing is computed before it is needed.

        Parameters
        ----------
        domain: real images.
        num_classes: labels are 0 to num_classes - 1.
        seed: of generated images, subsets and classifiers.
        recipe: of all scores.

        Raises
        ------
        UserError: fewer than 2 held-out images, or fewer than 2 to train on.
        """
        for images, what in ((domain.test, "held-out"), (domain.train, "training")):
            if len(images) < 2:
                raise UserError(
                    f"{domain.name} has {len(images)} {what} image(s): scores need at least 2"
                )
        self.domain = domain
        self._num_classes = num_classes
        self._seed = seed
        self._recipe = recipe
        self._known: dict[tuple[Extractor, int], _Real] = {}

    @classmethod
    def of_source(
        cls, source: Source, image_format: ImageFormat, seed: int, recipe: Recipe = STANDARD
    ) -> "Evaluator":
        """The evaluator of a domain that is loaded; raises as `load_domain`."""
        return cls(load_domain(source, image_format), image_format.num_classes, seed, recipe)

    def prepare(self, count: int | None = None, inception: Extractor | None = None) -> None:
        """Compute now what is the same for all generators, for `cheap`, or `full` with these.

        After that, threads may score at the same time.
        """
        self._real(inception or self._own_extractor, count or CHEAP_IMAGES)

    def cheap(self, generator: Generator) -> Scores:
        """Image score, and distances on the classifier's features, of 1000 generated images."""
        images, _ = self._generate(generator, CHEAP_IMAGES)
        return self._scores(images, self._own_extractor)

    def full(self, generator: Generator, count: int, inception: Extractor | None = None) -> Scores:
        """All scores of `count` generated images; distances on Inception's features, if given.

        No utility where all images are of one class: any classifier would be right.
        """
        name = self.domain.name
        log.info("scoring: %d generated images against the held-out %s", count, name)
        images, labels = self._generate(generator, count)
        scores = self._scores(images, inception or self._own_extractor, full=True)
        if len(self.domain.train.labels.unique()) < 2:
            return scores
        log.info("scoring: training a classifier on the generated %s", name)
        student = train_classifier(images, labels, self._num_classes, self._seed, self._recipe)
        true, taken_for = self.domain.test.labels.numpy(), self._predicted(student)
        utility = Utility(
            metrics=classification_metrics(true, taken_for),
            real=classification_metrics(true, self._predicted(self._classifier)),
            confusion=confusion_counts(true, taken_for, self._num_classes),
            n_generated=count,
            n_real=len(self.domain.test),
            seed=self._seed,
            recipe=self._recipe.name,
        )
        return replace(scores, utility=utility)

    def nearest(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Generated images, one of each class, and the training image that is most like each.

        By the classifier's features. Where they are as good as equal, the generator has learnt
        single images by heart.

        Returns
        -------
        float32 (num_classes, C, H, W) in [-1, 1], both.
        """
        images, _ = generator.sample(self._num_classes, seed=self._seed)
        features = self._classifier.features
        real = self.domain.train.images
        found = torch.cdist(features(images), features(real)).argmin(dim=1)
        return images, to_unit(real[found])

    @functools.cached_property
    def _classifier(self) -> Classifier:
        started = time.monotonic()
        found = real_classifier(self.domain.train, self._num_classes, self._seed, self._recipe)
        seconds = time.monotonic() - started
        log.info("scoring: classifier of real %s ready, %.1f s", self.domain.name, seconds)
        return found

    @functools.cached_property
    def _own_extractor(self) -> Extractor:
        return classifier_extractor(self._classifier)

    def _generate(self, generator: Generator, count: int) -> tuple[Tensor, Tensor]:
        """Images (count, C, H, W), uint8 or in [-1, 1], and labels, in random order."""
        random = torch.Generator().manual_seed(self._seed)
        if self._recipe.as_trained:
            real = self.domain.train.labels.sort().values
            dealt = real[torch.arange(count) * len(real) // count]
            labels = dealt[torch.randperm(count, generator=random)]
        else:
            labels = torch.randint(self._num_classes, (count,), generator=random)
        parts = generator.in_parts(labels, self._seed)
        return torch.cat([to_uint8(p) if self._recipe.rounded else p for p in parts]), labels

    def _predicted(self, classifier: Classifier) -> np.ndarray:
        """What a classifier takes the held-out images for."""
        return classifier.predict(self.domain.test.images).numpy()

    def _scores(self, images: Tensor, extractor: Extractor, *, full: bool = False) -> Scores:
        """The scores of generated images (n, C, H, W), uint8 or in [-1, 1], without utility."""
        own, held_out = self._own_extractor, len(self.domain.test)
        real = self._real(extractor, len(images))
        image = Score(
            name="image_score",
            value=self._image_score(images, len(images)),
            real=real.image_score,
            extractor=own.name,
            resize=own.resize,
            n_generated=len(images),
            n_real=held_out,
            seed=self._seed,
            recipe=self._recipe.name,
        )
        generated = extractor.features(images[: len(self.domain.train)])
        distance, stabilised = frechet_distance(generated, real.held_out)
        frechet = Score(
            name="frechet_distance" + extractor.suffix,
            value=distance,
            real=real.frechet_distance,
            extractor=extractor.name,
            resize=extractor.resize,
            n_generated=len(generated),
            n_real=held_out,
            seed=self._seed,
            recipe=self._recipe.name,
            stabilised=stabilised or real.stabilised,
        )
        kernel = replace(
            frechet,
            name="kernel_distance" + extractor.suffix,
            value=kernel_distance(generated, real.held_out, seed=self._seed),
            real=real.kernel_distance,
            stabilised=False,
        )
        if not full:
            return Scores(image, frechet, kernel)
        found = zip(PRDC, prdc(real.held_out, generated), real.prdc, strict=True)
        compared = replace(kernel, n_generated=min(len(generated), held_out))  # see `prdc`
        neighbours = tuple(
            replace(compared, name=name + extractor.suffix, value=value, real=of_real)
            for name, value, of_real in found
        )
        return Scores(image, frechet, kernel, neighbours)

    def _image_score(self, images: Tensor, count: int) -> float:
        """Of `count` images as the recipe says, in groups that the held-out ones suffice for."""
        most = self._recipe.score_images or len(self.domain.test)
        return image_score(
            self._classifier.probabilities(images[: self._recipe.score_images]),
            min(count, most, len(images)),
        )

    def _real(self, extractor: Extractor, count: int) -> _Real:
        """What `count` generated images are compared with."""
        if (extractor, count) not in self._known:
            random = torch.Generator().manual_seed(self._seed)
            train, test = (
                part.images[torch.randperm(len(part), generator=random)[:most]]
                for part, most in ((self.domain.train, count), (self.domain.test, None))
            )
            held_out, other = extractor.real_features(test), extractor.real_features(train)
            distance, stabilised = frechet_distance(other, held_out)
            self._known[extractor, count] = _Real(
                held_out,
                self._image_score(test, count),
                distance,
                kernel_distance(other, held_out, seed=self._seed),
                other,
                stabilised,
            )
        return self._known[extractor, count]
