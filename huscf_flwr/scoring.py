"""Scores of a run's generators against the domains its clients were dealt, in simulation."""

import logging
import time

from huscf_flwr.batches import LabelledImages
from huscf_flwr.config import RunConfig
from huscf_flwr.data.sources import Domain, load_domain
from huscf_flwr.evaluation import Classifier, accuracy, image_score, real_classifier, utility
from huscf_flwr.generator import Generator

log = logging.getLogger(__name__)
_SCORED_IMAGES = 1000


class Scorer:
    """Knows the domains of the run config; trains one classifier of real images for each."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Nothing is loaded before it is needed."""
        self._config = config
        self._sources = config.data_settings(base_dir).sources
        self._classifiers: dict[str, Classifier] = {}

    def image_score(self, generator: Generator, domain: str) -> float:
        """Image score of 1000 generated images under the domain's classifier."""
        images, _ = generator.sample(_SCORED_IMAGES, seed=self._config.seed)
        return image_score(self._classifier(domain).predict(images))

    def utility(self, generator: Generator, domain: str) -> dict[str, float]:
        """Accuracy on held-out real images after training on generated ones only."""
        count, seed = self._config.utility_images, self._config.seed
        return {
            "accuracy": utility(generator, self._held_out(domain), count=count, seed=seed),
            "accuracy_trained_on_real": accuracy(self._classifier(domain), self._held_out(domain)),
        }

    def _classifier(self, name: str) -> Classifier:
        if name not in self._classifiers:
            started = time.monotonic()
            domain, config = self._domain(name), self._config
            self._classifiers[name] = real_classifier(
                domain.train, config.num_classes, config.seed
            )
            log.info(
                "scoring: trained a classifier on real %s, %.1f s",
                name,
                time.monotonic() - started,
            )
        return self._classifiers[name]

    def _held_out(self, name: str) -> LabelledImages:
        return self._domain(name).test

    def _domain(self, name: str) -> Domain:
        domains = (load_domain(source, self._config.image_format) for source in self._sources)
        return next(domain for domain in domains if domain.name == name)
