"""What a run shows and leaves: log lines, tables, pictures, generators, checkpoints, summary,
and the page that shows it all.

Every file is flushed after each round; files that replace others are written aside and renamed.
"""

import csv
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.batches import LabelledImages, to_uint8, to_unit
from huscf_flwr.checkpoint import Checkpoint
from huscf_flwr.config import RunConfig, Value
from huscf_flwr.cpu import peak_memory_mb
from huscf_flwr.data.partition import client_data, resolve_sources
from huscf_flwr.data.sources import domain_name, load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation import cluster_recovery
from huscf_flwr.generator import Generator
from huscf_flwr.planning.plan import Plan
from huscf_flwr.planning.timeline import draw_timeline
from huscf_flwr.records import ClientInfo, RoundRecord
from huscf_flwr.report.board import Board, require_tensorboard
from huscf_flwr.report.page import write_page
from huscf_flwr.scoring import Scorer

log = logging.getLogger(__name__)

_METRICS = ("round", "domain", "cluster", "image_score", "generator_loss", "discriminator_loss")
_CLUSTERS = ("round", "client", "cluster", "kld", "weight", "domain", "size", "cut", "labels")
_GRID_ROWS = 8
_VISIBLE = 48  # pixels that an image in a grid has at least
_VERSIONS = ("flwr", "numpy", "scikit-learn", "torch")


class RunReport:
    """Writes the folder of one run and its log lines."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Report below `base_dir`; nothing is written before `start`.

        Raises
        ------
        UserError: TensorBoard's files are wanted, and its package is missing.
        """
        self._config = config
        self._scorer = Scorer(config, base_dir)
        self._started = time.monotonic()
        self._last: RoundRecord | None = None
        self._fit_seconds = 0.0
        self._client_iterations = 0
        self._labels: dict[int, str] = {}
        self._base = Path(base_dir)
        self._board: Board | None = None
        if config.tensorboard:
            require_tensorboard()
        self.folder = Path()

    def start(self) -> None:
        """Create the run's folder and point `runs/latest` to it.

        Raises
        ------
        UserError: the folder cannot be written, or holds a run already.
        """
        self.folder = _create_folder(self._config, self._base)
        with (self.folder / "config.toml").open("w") as file:
            file.writelines(_toml_lines(self._config.as_dict()))
        if self._config.tensorboard:
            self._board = Board(self.folder)
        log.info("run %s: results in %s", self._config.name or self._config.strategy, self.folder)

    def plan(self, plan: Plan) -> None:
        """Write where the nets are cut, and why: plan.json and timeline.png."""
        text = json.dumps(plan.as_dict(), indent=2) + "\n"
        _write(self.folder / "plan.json", lambda path: path.write_text(text))
        self._try("timeline.png", lambda: draw_timeline(plan, self.folder / "timeline.png"))

    def record(self, record: RoundRecord) -> dict[str, float]:
        """Write and log a round; the image score of each domain, where it is due."""
        self._last = record
        self._fit_seconds += record.seconds
        self._client_iterations += record.iterations * len(record.clients)
        generators = self._generators(record)
        for cluster, generator in generators.items():
            name = f"round-{record.round:03d}-cluster-{cluster}.png"
            _write(self.folder / "samples" / name, lambda path, g=generator: save_grid(g, path))
        for domain in record.main_clusters():
            self._show_real(domain)
        final = record.round == self._config.num_server_rounds
        due = final or record.round % self._config.evaluate_every == 0
        scores = {}
        for (domain, cluster), members in record.by_domain_and_cluster().items():
            score = (
                self._scorer.image_score(generators[cluster], domain) if due and domain else None
            )
            scores[domain, cluster] = score
            losses = np.mean([[m.generator_loss, m.discriminator_loss] for m in members], axis=0)
            row = (record.round, domain, cluster, score, *losses)
            self._append("metrics.csv", (*_METRICS, "seconds"), (*row, record.seconds))
        for client in record.clients:
            info = client.info
            row = (record.round, info.number, client.cluster, client.kld, client.weight)
            more = (info.domain, info.size, info.cut, self._label_counts(info))
            self._append("clusters.csv", _CLUSTERS, (*row, *more))
        main = record.main_clusters()
        shown = {d: s for d, c in main.items() if (s := scores[d, c]) is not None}
        log.info(self._round_line(record, shown))
        if self._board:
            self._board.add_last_round()
        if due and not final:
            self._write_page()
        return shown

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save what it takes to go on after this round."""
        checkpoint.save(self.folder / "checkpoints")

    def finish(self, extra: Mapping[str, Any]) -> None:
        """Score the last round's generators, and write them and summary.json.

        `extra` holds what only the strategy knows, by summary key.
        """
        if self._last is None:
            raise UserError("no round was finished: there is nothing to report")
        record, generators = self._last, self._generators(self._last)
        for cluster, generator in generators.items():
            generator.save(self.folder / f"generator-cluster-{cluster}.safetensors")
        domains: dict[str, Any] = {}
        for domain, cluster in record.main_clusters().items():
            log.info("scoring: utility of the generated %s", domain)
            domains[domain] = {
                "cluster": cluster,
                "image_score": self._scorer.image_score(generators[cluster], domain),
                "utility": self._scorer.utility(generators[cluster], domain),
            }
        true_domains = [client.info.domain for client in record.clients]
        known = all(true_domains)
        clusters = [client.cluster for client in record.clients]
        ari = cluster_recovery(true_domains, clusters) if known else None
        summary = {
            "rounds": record.round,
            "seconds": round(time.monotonic() - self._started, 1),
            "clients": len(record.clients),
            "adjusted_rand_index": ari,
            "clusters": len(record.models),
            "domains": domains,
            "iterations_per_second": round(self._client_iterations / self._fit_seconds, 2),
            "peak_memory_mb": {
                "server": round(peak_memory_mb()),
                "client": round(max(client.peak_memory_mb for client in record.clients)),
            },
            **extra,
        }
        text = json.dumps(summary, indent=2) + "\n"
        _write(self.folder / "summary.json", lambda path: path.write_text(text))
        if self._board:
            self._board.close()
        self._write_page()
        for domain, scores in domains.items():
            log.info(
                "%s: image score %.2f, utility accuracy %.3f (trained on real images: %.3f)",
                domain,
                scores["image_score"],
                scores["utility"]["accuracy"],
                scores["utility"]["accuracy_trained_on_real"],
            )
        found = "" if ari is None else f", adjusted Rand index {ari:.2f}"
        log.info("%d clusters%s, %.0f s in all", len(record.models), found, summary["seconds"])
        log.info("results in %s", self.folder)

    def _write_page(self) -> None:
        self._try("report.html", lambda: write_page(self.folder))

    def _try(self, name: str, write: Callable[[], object]) -> None:
        """Write a file that the run can do without."""
        try:
            write()
        except Exception as error:  # whatever it is, training goes on
            log.warning("%s is not written: %s: %s", name, type(error).__name__, error)

    def _show_real(self, domain: str) -> None:
        """Once a run, a picture of real images of a domain, to compare with generated ones."""
        path = self.folder / "samples" / f"real-{domain}.png"
        if path.exists():
            return
        sources = resolve_sources(self._config.domains, str(self._base))
        source = next(source for source in sources if domain_name(source) == domain)
        real = load_domain(source, self._config.image_format).test
        images = by_class(real, self._config.num_classes, _GRID_ROWS)
        _write(path, lambda path: save_images(images, path, self._config.num_classes))

    def _label_counts(self, info: ClientInfo) -> str:
        """How many images of each class a client was dealt; empty where the data is its own.

        Worked out from the run config: labels do not leave a client.
        """
        if info.part is None:
            return ""
        if info.number not in self._labels:
            config, (partition, partitions) = self._config, info.part
            _, data = client_data(
                resolve_sources(config.domains, str(self._base)),
                config.image_format,
                client=partition,
                clients=partitions,
                seed=config.seed,
            )
            counts = torch.bincount(data.labels, minlength=config.num_classes)
            self._labels[info.number] = " ".join(map(str, counts.tolist()))
        return self._labels[info.number]

    def _round_line(self, record: RoundRecord, scores: Mapping[str, float]) -> str:
        losses = np.mean(
            [[c.generator_loss, c.discriminator_loss] for c in record.clients], axis=0
        )
        sizes: dict[int, int] = {}
        for client in record.clients:
            sizes[client.cluster] = sizes.get(client.cluster, 0) + 1
        line = (
            f"round {record.round}/{self._config.num_server_rounds}  {record.seconds:.1f} s  "
            f"generator loss {losses[0]:.3f}  discriminator loss {losses[1]:.3f}  clusters "
            + " ".join(f"{cluster}:{size}" for cluster, size in sorted(sizes.items()))
        )
        if scores:
            line += "  image score " + " ".join(f"{d} {s:.2f}" for d, s in scores.items())
        if record.failures:
            line += f"  without client {', '.join(map(str, sorted(record.failures)))}"
        return line

    def _generators(self, record: RoundRecord) -> dict[int, Generator]:
        return {c: Generator(self._config.net_spec, s) for c, s in record.models.items()}

    def _append(self, name: str, header: tuple[str, ...], row: tuple[Any, ...]) -> None:
        path = self.folder / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(header)
            writer.writerow([_cell(value) for value in row])


def save_grid(generator: Generator, path: Path, rows: int = _GRID_ROWS) -> None:
    """A picture of generated images, one column per class, always of the same latent vectors."""
    classes = generator.spec.num_classes
    images, _ = generator.sample(rows * classes, seed=0)
    save_images(images, path, columns=classes)


def by_class(data: LabelledImages, classes: int, rows: int) -> Tensor:
    """The first images of each class, in [-1, 1], in the order of `save_grid`.

    Where there are fewer than `rows` of a class, blank ones follow.
    """
    grid = torch.full((rows, classes, *data.images.shape[1:]), -1.0)
    for label in range(classes):
        found = to_unit(data.images[data.labels == label][:rows])
        grid[: len(found), label] = found
    return grid.flatten(0, 1)


def save_images(images: Tensor, path: Path, columns: int) -> None:
    """Images (n, C, H, W) in [-1, 1] side by side as a PNG, enlarged to be seen."""
    from PIL import Image
    from torchvision.utils import make_grid

    scale = max(1, _VISIBLE // images.shape[-1])
    enlarged = to_uint8(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, nrow=columns, padding=4, pad_value=128)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path, format="PNG")


def _create_folder(config: RunConfig, base: Path) -> Path:
    runs = base / "runs"
    label = config.name or config.strategy
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = base / config.output_dir if config.output_dir else runs / f"{stamp}-{label}"
    number = 2
    while not config.output_dir and folder.exists():
        folder = runs / f"{stamp}-{label}-{number}"
        number += 1
    try:
        if (folder / "config.toml").exists():
            raise UserError(f'output-dir="{folder}" holds a run already: name another folder')
        for part in (folder, folder / "samples", folder / "checkpoints"):
            part.mkdir(parents=True, exist_ok=True)
        runs.mkdir(exist_ok=True)
        pointer = runs / f".latest-{os.getpid()}"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(os.path.relpath(folder, runs), target_is_directory=True)
        pointer.replace(runs / "latest")
    except OSError as error:
        raise UserError(f'output-dir="{folder}" cannot be written: {error}') from None
    return folder.resolve()


def _write(path: Path, writer: Any) -> None:
    temporary = path.with_suffix(".tmp")
    writer(temporary)
    temporary.replace(path)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def _toml_lines(values: Mapping[str, Value]) -> list[str]:
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
    lines += [f"\n# python {sys.version.split()[0]}\n"]
    return lines + [f"# {name} {version(name)}\n" for name in _VERSIONS]


def set_up_logging() -> None:
    """Show this library's log lines on standard error, and of Flower's only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("huscf_flwr")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("flwr").setLevel(logging.WARNING)
