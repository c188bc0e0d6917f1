"""Scores of a run's generators against the domains its clients were dealt, in simulation."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.evaluation.inception import DOWNLOAD, PACKAGE, inception_extractor
from huscf_flwr.evaluation.scores import Scores
from huscf_flwr.nets.generator import Generator
from huscf_flwr.system.cpu import side_by_side, torch_device


class Scorer:
    """Knows the domains of the run config, and scores generators against them."""

    def __init__(self, config: RunConfig, base_dir: str, threads: int) -> None:
        """Data is loaded when it is needed; Inception's weights, if any, at once.

        Parameters
        ----------
        config: the run config.
        base_dir: folder that relative paths in it start from.
        threads: to compute with, all together.

        Raises
        ------
        UserError: the weights cannot be had, see `inception_extractor`.
        """
        self._config = config
        self._threads = threads
        self._sources = {s.name: s for s in config.sources(base_dir)}
        self._evaluators: dict[str, Evaluator] = {}
        weights = config.inception_weights
        if weights and weights not in (DOWNLOAD, PACKAGE):
            weights = str(Path(base_dir) / weights)
        self._inception = (
            inception_extractor(weights, torch_device(config.device)) if weights else None
        )

    def scores(self, work: Sequence[tuple[str, Generator]], *, full: bool) -> list[Scores]:
        """Scores of generators, each against a domain: at the same time, as many as get a thread.

        All, as `Evaluator.full`; or what is worth computing during training, as `Evaluator.cheap`.
        """
        domains = dict.fromkeys(domain for domain, _ in work)
        side_by_side([partial(self._prepare, domain, full) for domain in domains], self._threads)
        return side_by_side(
            [partial(self._score, domain, generator, full) for domain, generator in work],
            self._threads,
        )

    def nearest(self, domain: str, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Evaluator.nearest`."""
        return self._evaluator(domain).nearest(generator)

    def _prepare(self, domain: str, full: bool) -> None:
        evaluator = self._evaluator(domain)
        if full:
            evaluator.prepare(self._config.utility_images, self._inception)
        else:
            evaluator.prepare()

    def _score(self, domain: str, generator: Generator, full: bool) -> Scores:
        evaluator = self._evaluator(domain)
        if full:
            return evaluator.full(generator, self._config.utility_images, self._inception)
        return evaluator.cheap(generator)

    def _evaluator(self, domain: str) -> Evaluator:
        if domain not in self._evaluators:
            config = self._config
            self._evaluators[domain] = Evaluator.of_source(
                self._sources[domain], config.image_format, config.seed, config.recipe
            )
        return self._evaluators[domain]
