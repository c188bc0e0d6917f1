"""Scores of a run's generators against the domains its clients were dealt, in simulation."""

from pathlib import Path

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.evaluation.extractors import DOWNLOAD, inception_extractor
from huscf_flwr.evaluation.scores import Scores
from huscf_flwr.nets.generator import Generator
from huscf_flwr.system.cpu import torch_device


class Scorer:
    """Knows the domains of the run config, and scores generators against them."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Data is loaded when it is needed; Inception's weights, if any, at once.

        Raises
        ------
        UserError: the weights cannot be had, see `inception_extractor`.
        """
        self._config = config
        self._sources = {s.name: s for s in config.sources(base_dir)}
        self._evaluators: dict[str, Evaluator] = {}
        weights = config.inception_weights
        if weights and weights != DOWNLOAD:
            weights = str(Path(base_dir) / weights)
        self._inception = (
            inception_extractor(weights, torch_device(config.device)) if weights else None
        )

    def cheap(self, generator: Generator, domain: str) -> Scores:
        """What is worth computing during training, see `Evaluator.cheap`."""
        return self._evaluator(domain).cheap(generator)

    def full(self, generator: Generator, domain: str) -> Scores:
        """Everything, see `Evaluator.full`."""
        count = self._config.utility_images
        return self._evaluator(domain).full(generator, count, self._inception)

    def _evaluator(self, domain: str) -> Evaluator:
        if domain not in self._evaluators:
            config = self._config
            self._evaluators[domain] = Evaluator.of_source(
                self._sources[domain], config.image_format, config.seed, config.recipe
            )
        return self._evaluators[domain]
