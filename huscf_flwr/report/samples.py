"""What a run's generators make, and what it is to look and sound like: the folder `samples`."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import to_uint8
from huscf_flwr.data.format import numbered
from huscf_flwr.data.sound import save_wav, waves_of
from huscf_flwr.data.sources import Source, kind_of, load_domain
from huscf_flwr.errors import some
from huscf_flwr.nets.generator import Generator
from huscf_flwr.report.grids import GRID_ROWS, by_class, save_grid, save_images
from huscf_flwr.report.records import RoundRecord
from huscf_flwr.system.files import replacing

log = logging.getLogger(__name__)
_STEPS = 10  # from a class to the next
_MOST = 20  # clusters


class Samples:
    """Writes a run's samples.

    Attributes
    ----------
    names: how labels are called, by domain, of those that have been shown.
    """

    def __init__(self, config: RunConfig, sources: tuple[Source, ...]) -> None:
        """`sources` are the run's domains."""
        self._config = config
        self._sources = {source.name: source for source in sources}
        self.names: dict[str, tuple[str, ...]] = {}

    def show_real(self, domain: str, folder: Path) -> None:
        """Held-out real images of a domain, one column per class; a warning of empty classes."""
        config, source = self._config, self._sources[domain]
        classes = config.num_classes
        names = self.names[domain] = kind_of(source).names(classes)
        found = load_domain(source, config.image_format)
        counts = found.train.labels.bincount(minlength=classes).tolist()
        if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
            log.warning("%s has no images of class %s", domain, some(empty))
        images = by_class(found.test, classes, GRID_ROWS)
        with replacing(folder / f"real-{domain}.png") as aside:
            save_images(images, aside, classes, names)
        self._save_sounds(images[:classes], folder / f"real-{domain}.wav")

    def show(self, record: RoundRecord, generators: dict[int, Generator], folder: Path) -> None:
        """Images of each cluster after a round, always of the same latent vectors."""
        for cluster, generator in generators.items():
            name = f"round-{record.round:03d}-cluster-{cluster}.png"
            with replacing(folder / name) as aside:
                save_grid(generator, aside, self._names_in(record, cluster))

    def show_last(self, generators: dict[int, Generator], folder: Path) -> None:
        """What lies between classes, a row for each; and where images are pictures of recordings,
        a sound of each class. Of some clusters, where there are very many."""
        for cluster, generator in list(generators.items())[:_MOST]:
            classes = generator.spec.num_classes
            if classes > 1:  # by itself, one has nothing beside it
                rows = generator.between(_STEPS, seed=0)
                with replacing(folder / f"between-cluster-{cluster}.png") as aside:
                    save_images(rows.flatten(0, 1), aside, _STEPS)
            images, _ = generator.sample(classes, seed=0)
            self._save_sounds(images, folder / f"cluster-{cluster}.wav")

    def show_nearest(self, nearest: Mapping[str, tuple[Tensor, Tensor]], folder: Path) -> None:
        """By domain: generated images (n, C, H, W), and below them real ones, both in [-1, 1]."""
        for domain, rows in nearest.items():
            with replacing(folder / f"nearest-{domain}.png") as aside:
                save_images(torch.cat(rows), aside, len(rows[0]), self.names.get(domain, ()))

    def _save_sounds(self, images: Tensor, path: Path) -> None:
        """What images (n, C, H, W) in [-1, 1] sound like; nothing, where they are only images."""
        if (sound := self._config.sound) is None:
            return
        waves = waves_of(to_uint8(images.mean(dim=1)).numpy(), sound)
        with replacing(path) as aside:
            save_wav(waves, aside, sound)

    def _names_in(self, record: RoundRecord, cluster: int) -> tuple[str, ...]:
        """How labels are called in a cluster: as in its domains, unless these differ."""
        main = record.main_clusters()
        found = {self.names.get(domain, ()) for domain, c in main.items() if c == cluster}
        return (found.pop() if len(found) == 1 else ()) or numbered(self._config.num_classes)
