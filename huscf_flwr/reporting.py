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
from collections.abc import Callable, Mapping, Sequence
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
from huscf_flwr.data.partition import label_counts
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.recovery import cluster_recovery
from huscf_flwr.evaluation.scorer import Scorer
from huscf_flwr.evaluation.scores import CHEAP_SCORES, Scores
from huscf_flwr.generator import Generator
from huscf_flwr.planning.plan import Plan
from huscf_flwr.planning.timeline import draw_timeline
from huscf_flwr.records import ClientInfo, ClientScores, RoundRecord
from huscf_flwr.report.board import Board, require_tensorboard
from huscf_flwr.report.page import write_page

log = logging.getLogger(__name__)

_METRICS = ("round", "domain", "cluster", *CHEAP_SCORES, "generator_loss", "discriminator_loss")
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
        self._client_scores: dict[str, dict[str, float]] = {}
        self._fit_seconds = 0.0
        self._client_iterations = 0
        self._data = config.data_settings(base_dir)
        self._label_table: np.ndarray | None = None
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
        text = json.dumps({**plan.as_dict(), "times_s": plan.times_s().tolist()}, indent=2) + "\n"
        _write(self.folder / "plan.json", lambda path: path.write_text(text))
        self._try("timeline.png", lambda: draw_timeline(plan, self.folder / "timeline.png"))

    def record(self, record: RoundRecord) -> dict[str, Scores]:
        """Write and log a round; the scores of each domain's main cluster, where they are due."""
        self._last = record
        self._fit_seconds += record.seconds
        self._client_iterations += record.iterations * len(record.clients)
        generators = self._generators(record)
        for cluster, generator in generators.items():
            name = f"round-{record.round:03d}-cluster-{cluster}.png"
            _write(self.folder / "samples" / name, lambda path, g=generator: save_grid(g, path))
        for domain in record.main_clusters():
            self._show_real(domain)
        due = self._config.scores_due(record.round)
        scores: dict[tuple[str, int], Scores] = {}
        for (domain, cluster), members in record.by_domain_and_cluster().items():
            values: dict[str, float] = {}
            if due and domain:
                found = self._scorer.cheap(generators[cluster], domain)
                scores[domain, cluster], values = found, found.values()
            losses = np.mean([[m.generator_loss, m.discriminator_loss] for m in members], axis=0)
            row = (record.round, domain, cluster, *map(values.get, CHEAP_SCORES), *losses)
            self._append("metrics.csv", (*_METRICS, "seconds"), (*row, record.seconds))
        for client in record.clients:
            info = client.info
            row = (record.round, info.number, client.cluster, client.kld, client.weight)
            more = (info.domain, info.size, info.cut, self._label_counts(info))
            self._append("clusters.csv", _CLUSTERS, (*row, *more))
        main = record.main_clusters()
        shown = {d: scores[d, c] for d, c in main.items() if (d, c) in scores}
        log.info(self._round_line(record, shown))
        if self._board:
            self._board.add_last_round()
        if due and record.round < self._config.num_server_rounds:
            self._write_page()
        return shown

    def client_scores(
        self, round_: int, scores: Mapping[int, Sequence[ClientScores]]
    ) -> dict[int, dict[str, float]]:
        """Write and log what clients with data of their own found of their cluster's generator.

        Returns
        -------
        By cluster: the mean of each score, weighted by held-out images.
        """
        means = {cluster: _mean(found) for cluster, found in sorted(scores.items())}
        for cluster, mean in means.items():
            log.info(
                "cluster %d on its clients' own images: image score %.2f, Fréchet distance on "
                "classifier features %.3g (real images: %.3g), %d clients",
                cluster,
                *(mean[name] for name in (*CHEAP_SCORES[:2], f"{CHEAP_SCORES[1]}_real")),
                len(scores[cluster]),
            )
        self._client_scores = {
            str(cluster): {**mean, "clients": len(scores[cluster])}
            for cluster, mean in means.items()
        }
        path = self.folder / "metrics.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if (row["round"], row["domain"]) == (str(round_), ""):
                mean = means.get(int(row["cluster"]), {})
                row |= {name: _cell(mean[name]) for name in CHEAP_SCORES if name in mean}
        _write(path, lambda temporary: _write_rows(temporary, rows))
        return means

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
            found = self._scorer.full(generators[cluster], domain)
            log.info("%s: %s", domain, found)
            domains[domain] = {"cluster": cluster, **found.as_dict()}
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
            "clusters_scores": self._client_scores,
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
        recovered = "" if ari is None else f", adjusted Rand index {ari:.2f}"
        log.info("%d clusters%s, %.0f s in all", len(record.models), recovered, summary["seconds"])
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
        sources = self._data.sources
        source = next(source for source in sources if source.name == domain)
        real = load_domain(source, self._config.image_format).test
        images = by_class(real, self._config.num_classes, _GRID_ROWS)
        _write(path, lambda path: save_images(images, path, self._config.num_classes))

    def _label_counts(self, info: ClientInfo) -> str:
        """How many images of each class a client was dealt; empty where the data is its own.

        Worked out from the run config: labels do not leave a client.
        """
        if info.part is None:
            return ""
        partition, partitions = info.part
        if self._label_table is None:
            self._label_table = label_counts(self._data, partitions)
        return " ".join(map(str, self._label_table[partition]))

    def _round_line(self, record: RoundRecord, scores: Mapping[str, Scores]) -> str:
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
            line += "  " + "; ".join(f"{d}: {s}" for d, s in scores.items())
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


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _mean(scores: Sequence[ClientScores]) -> dict[str, float]:
    """The mean of each score that all clients have, weighted by their held-out images."""
    names = [name for name in scores[0].values if all(name in s.values for s in scores)]
    images = [s.images for s in scores]
    return {
        name: float(np.average([s.values[name] for s in scores], weights=images)) for name in names
    }


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
