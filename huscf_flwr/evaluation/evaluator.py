"""Everything about one set of real images that it takes to score generators against it."""

import functools
import logging
import time
from dataclasses import replace

import torch
from torch import Tensor

from huscf_flwr.batches import to_uint8, to_unit
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, Source, load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.classifier import (
    BATCH,
    Classifier,
    real_classifier,
    train_classifier,
)
from huscf_flwr.evaluation.distances import frechet_distance, kernel_distance
from huscf_flwr.evaluation.extractors import Extractor, classifier_extractor
from huscf_flwr.evaluation.image_score import image_score
from huscf_flwr.evaluation.scores import Score, Scores
from huscf_flwr.evaluation.utility import classification_metrics
from huscf_flwr.generator import Generator

log = logging.getLogger(__name__)
_CHEAP_IMAGES = 1000
_STEPS_ON_GENERATED = 600
_EPOCHS_ON_GENERATED = 20  # at most: where there are few images, more teach nothing new


class Evaluator:
    """Scores generators against one domain.

    The domain's training images teach the classifier, its held-out ones are what generated images
    are compared with. Generated images are rounded to 8 bits, as real ones are.
    """

    def __init__(self, domain: Domain, num_classes: int, seed: int) -> None:
        """Nothing is computed before it is needed.

        Parameters
        ----------
        domain: real images.
        num_classes: labels are 0 to num_classes - 1.
        seed: of generated images, subsets and classifiers.

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

    @classmethod
    def of_source(cls, source: Source, image_format: ImageFormat, seed: int) -> "Evaluator":
        """The evaluator of a domain that is loaded; raises as `load_domain`."""
        return cls(load_domain(source, image_format), image_format.num_classes, seed)

    def cheap(self, generator: Generator) -> Scores:
        """Image score, and distances on the classifier's features, of 1000 generated images."""
        images, _ = self._generate(generator, _CHEAP_IMAGES)
        return self._scores(images, self._own_extractor)

    def full(self, generator: Generator, count: int, inception: Extractor | None = None) -> Scores:
        """All scores of `count` generated images; distances on Inception's features, if given."""
        name = self.domain.name
        log.info("scoring: %d generated images against the held-out %s", count, name)
        images, labels = self._generate(generator, count)
        scores = self._scores(images, inception or self._own_extractor)
        log.info("scoring: training a classifier on the generated %s", name)
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(self._seed))
        student = train_classifier(
            images[shuffled],
            labels[shuffled],
            self._num_classes,
            steps=min(_STEPS_ON_GENERATED, _EPOCHS_ON_GENERATED * count // BATCH),
            seed=self._seed,
        )
        utility = {
            **self._metrics(student),
            "accuracy_trained_on_real": self._metrics(self._classifier)["accuracy"],
        }
        return replace(scores, utility=utility)

    @functools.cached_property
    def _classifier(self) -> Classifier:
        started = time.monotonic()
        found = real_classifier(self.domain.train, self._num_classes, self._seed)
        seconds = time.monotonic() - started
        log.info("scoring: classifier of real %s ready, %.1f s", self.domain.name, seconds)
        return found

    @property
    def _own_extractor(self) -> Extractor:
        return classifier_extractor(self._classifier)

    def _generate(self, generator: Generator, count: int) -> tuple[Tensor, Tensor]:
        classes = self.domain.train.labels.unique()  # a net may know more than this domain has
        dealt = classes[torch.arange(count) % len(classes)]
        images, labels = generator.sample(count, dealt, self._seed)
        return to_unit(to_uint8(images)), labels

    def _metrics(self, classifier: Classifier) -> dict[str, float]:
        test = self.domain.test
        return classification_metrics(
            test.labels.numpy(), classifier.predict(to_unit(test.images)).numpy()
        )

    def _scores(self, images: Tensor, extractor: Extractor) -> Scores:
        """The scores of generated images (n, C, H, W) in [-1, 1]."""
        image = Score(
            name="image_score",
            value=image_score(self._classifier.probabilities(images)),
            extractor=self._own_extractor.name,
            resize=self._own_extractor.resize,
            n_generated=len(images),
            seed=self._seed,
        )
        train, test = self.domain.train, self.domain.test
        random = torch.Generator().manual_seed(self._seed)
        some = torch.randperm(len(train), generator=random)[: len(images)]
        generated, real, other_real = (
            extractor.features(part)
            for part in (images, to_unit(test.images), to_unit(train.images[some]))
        )
        distance, stabilised = frechet_distance(generated, real)
        floor, floor_stabilised = frechet_distance(other_real, real)
        frechet = Score(
            name="frechet_distance" + extractor.suffix,
            value=distance,
            extractor=extractor.name,
            resize=extractor.resize,
            n_generated=len(images),
            n_real=len(test),
            seed=self._seed,
            floor=floor,
            n_floor=len(some),
            stabilised=stabilised or floor_stabilised,
        )
        kernel = replace(
            frechet,
            name="kernel_distance" + extractor.suffix,
            value=kernel_distance(generated, real, seed=self._seed),
            floor=kernel_distance(other_real, real, seed=self._seed),
            stabilised=False,
        )
        return Scores(image, frechet, kernel)
