"""What a run writes as it goes: its folder, and a log line for every round.

Every file is closed after each round; files that replace others are written aside and renamed.
"""

import csv
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from huscf_flwr.config import RunConfig
from huscf_flwr.data.partition import label_counts
from huscf_flwr.errors import cause
from huscf_flwr.evaluation.recovery import cluster_recovery
from huscf_flwr.evaluation.scores import CHEAP_SCORES, REAL
from huscf_flwr.nets.generator import Generator
from huscf_flwr.planning.plan import Plan
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.privacy.accounting import local_privacy
from huscf_flwr.report.board import Board, require_tensorboard
from huscf_flwr.report.checkpoint import Checkpoint
from huscf_flwr.report.config_file import config_as_toml
from huscf_flwr.report.files import CLUSTERS, METRICS, OWN_AUDIT, PLACE, Member, write_json
from huscf_flwr.report.origin import origin
from huscf_flwr.report.own_audits import OwnAudits
from huscf_flwr.report.records import ClientInfo, ClientScores, RoundRecord
from huscf_flwr.report.round_times import RoundTimes, advice
from huscf_flwr.report.run_folder import create_folder, rows_until, take_over
from huscf_flwr.report.samples import Samples
from huscf_flwr.report.summary import by_domain, of_clients
from huscf_flwr.system.cpu import peak_memory_mb
from huscf_flwr.system.files import replacing
from huscf_flwr.system.logs import in_words

log = logging.getLogger(__name__)
_FIRST_PAGE_S = 1.0  # that a page is taken to take before there is one
_RARELY = 50  # times as long as a page takes: so often it may be written, whatever is due
_METRICS, _CLUSTERS = "metrics.csv", "clusters.csv"
_TABLES = {_METRICS: METRICS, _CLUSTERS: CLUSTERS}


class RunReport:
    """Writes the folder of one run, and its log lines."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Report below `base_dir`; nothing is written before `start`.

        Raises
        ------
        UserError: TensorBoard's files are wanted, and its package is missing.
        """
        self._config = config
        self._started = self._first_round_began = self._page_written = time.monotonic()
        self._page_seconds = _FIRST_PAGE_S
        self._rounds_here = 0
        self._fit_seconds = 0.0
        self._client_iterations = 0
        self._data = config.data_settings(base_dir)
        self._samples = Samples(config, self._data.sources)
        self._label_table: np.ndarray | None = None
        self._base = Path(base_dir)
        self._audits = OwnAudits(config)
        self._times: list[RoundTimes] = []
        self._board: Board | None = None
        if config.tensorboard:
            require_tensorboard()
        self.folder = Path()
        self.saved_round = 0
        """The last one with a checkpoint."""

    def start(self, before: Path | None = None, rounds: int = 0) -> None:
        """Create the run's folder, and put there what it shows of the run that it goes on from.

        Parameters
        ----------
        before: that run's folder, if there is one.
        rounds: how many rounds of it count.

        Raises
        ------
        UserError: the folder cannot be written, or holds a run already.
        """
        self.folder = create_folder(self._config, self._base)
        resolved = "" if before is None else str(before)  # as runs/latest is another one now
        config = replace(self._config, resume=resolved)
        text = config_as_toml(config, origin(str(self._base), self._config.device))
        (self.folder / "config.toml").write_text(text, encoding="utf-8")
        if before is not None:
            with self._spared("what the run before has shown"):
                for name, columns in _TABLES.items():
                    self._append(name, columns, rows_until(rounds, before / name))
                planned = self._config.cuts in SEARCHES
                take_over(before, self.folder, rounds, planned=planned)
        if self._config.tensorboard:
            self._board = Board(self.folder)
        log.info("run %s: results in %s", self._config.name or self._config.strategy, self.folder)

    def meet(self, domains: Iterable[str]) -> None:
        """Show what clients were dealt, where that is new: real images, and how labels are called.

        A warning names classes without images.
        """
        new = [domain for domain in domains if domain not in self._samples.names]
        with self._spared("real images"):
            for domain in new:
                self._samples.show_real(domain, self.folder / "samples")
            if new:
                self._write_json("classes.json", self._samples.names)

    def plan(self, plan: Plan, devices: str) -> None:
        """Write plan.json and timeline.png: where the nets are cut, for which devices, and why."""
        times_s = plan.times_s().tolist()
        self._write_json("plan.json", {**plan.as_dict(), "devices": devices, "times_s": times_s})
        # Here, as below: devices that run strategies of their own load this, and draw nothing.
        from huscf_flwr.planning.timeline import draw_timeline

        with self._spared("timeline.png"), replacing(self.folder / "timeline.png") as aside:
            draw_timeline(plan, aside)

    def record(self, record: RoundRecord) -> None:
        """Write and log a complete round: its losses, clusters, samples, scores, generators.

        What cannot be written, since the disk is full for example, is a warning.
        """
        self.meet(record.main_clusters())
        if not self._rounds_here:
            self._first_round_began = time.monotonic() - record.seconds
        self._rounds_here += 1
        self._fit_seconds += record.seconds
        self._client_iterations += record.iterations * len(record.clients)
        with self._spared("samples"):
            self._samples.show(record, self._generators(record), self.folder / "samples")
        for name, rows in (
            (_METRICS, self._metrics(record)),
            (_CLUSTERS, map(vars, self._members(record))),
        ):
            with self._spared(name):
                self._append(name, _TABLES[name], rows)
        with self._spared("generators"):
            self.generators(record)
        log.info(self._round_line(record))
        self._audits.add(record)
        self._add_times(record)
        for cluster, scores in record.client_scores.items():
            mean = ClientScores.mean(scores)
            log.info(
                "cluster %d on its clients' own images: image score %.2f, Fréchet distance on "
                "classifier features %.3g (real images: %.3g), %d clients",
                cluster,
                *(mean[name] for name in (*CHEAP_SCORES[:2], CHEAP_SCORES[1] + REAL)),
                len(scores),
            )
        if self._board:
            with self._spared("tensorboard"):
                self._board.add_last_round()
        if record.round < self._config.num_server_rounds and self._page_due(record.round):
            self._write_page()

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save what it takes to go on after this round; a warning where that is impossible."""
        with self._spared(f"the checkpoint of round {checkpoint.round}"):
            checkpoint.save(self.folder / "checkpoints")
            self.saved_round = checkpoint.round

    def generators(self, record: RoundRecord) -> None:
        """Save the generators of a round, in place of those of the round before.

        Raises
        ------
        OSError: they cannot be written.
        """
        for cluster, generator in self._generators(record).items():
            generator.save(self.folder / f"generator-cluster-{cluster}.safetensors")
        for path in self.folder.glob("generator-cluster-*.safetensors"):
            if int(path.stem.rpartition("-")[2]) not in record.models:
                path.unlink()
                path.with_suffix(".md").unlink(missing_ok=True)

    def finish(
        self,
        record: RoundRecord,
        extra: Mapping[str, Any],
        nearest: Callable[[], Mapping[str, tuple[Tensor, Tensor]]],
    ) -> None:
        """Write summary.json, and all that shows it.

        Parameters
        ----------
        record: the last round, with the scores of the run.
        extra: what only the strategy knows, by summary key.
        nearest: gives images generated for each true domain, and the training images like them.
        """
        for (domain, cluster), scores in record.scores.items():
            log.info("%s, cluster %d: %s", domain, cluster, scores)
            for ends, of in record.by_cut.get((domain, cluster), {}).items():
                if of.scores is not scores:
                    log.info(
                        "  as %d clients with %s blocks of it have it: %s",
                        of.clients,
                        ends,
                        of.scores,
                    )
        true_domains = [client.info.domain for client in record.clients]
        known = all(true_domains) and len(set(true_domains)) > 1  # of one, nothing is to be found
        clusters = [client.cluster for client in record.clients]
        ari = cluster_recovery(true_domains, clusters) if known else None
        summary = {
            "rounds": record.round,
            "seconds": round(time.monotonic() - self._started, 1),
            "clients": len(record.clients),
            "partitions": max(
                (c.info.part[1] for c in record.clients if c.info.part), default=None
            ),
            "adjusted_rand_index": ari,
            "clusters": len(record.models),
            "domains": by_domain(record),
            "clusters_scores": {
                str(cluster): of_clients(scores, self._config)
                for cluster, scores in record.client_scores.items()
            },
            "costs_per_client_and_round": {
                "sent_bytes": round(record.costs.sent_bytes),
                "received_bytes": round(record.costs.received_bytes),
                "gflops": record.costs.flops / 1e9,
            },
            "local_privacy": self._local_privacy(),
            OWN_AUDIT: self._audits.as_dict(),
            "round_seconds": asdict(RoundTimes.mean(self._times)) if self._times else None,
            "iterations_per_second": round(self._client_iterations / self._fit_seconds, 2),
            "peak_memory_mb": {
                "server": round(peak_memory_mb()),
                "client": round(max(client.peak_memory_mb for client in record.clients)),
            },
            **extra,
        }
        self._write_json("summary.json", summary)
        if self._board:
            with self._spared("tensorboard"):
                self._board.close()
        with self._spared("samples"):
            samples = self.folder / "samples"
            self._samples.show_last(self._generators(record), samples)
            self._samples.show_nearest(nearest(), samples)
        self._write_page()
        recovered = "" if ari is None else f", adjusted Rand index {ari:.2f}"
        log.info("%d clusters%s, %.0f s in all", len(record.models), recovered, summary["seconds"])
        log.info("results in %s", self.folder)

    def _add_times(self, record: RoundRecord) -> None:
        """Take up, and log, where a round's time went."""
        if (times := RoundTimes.of(record)) is not None:
            self._times.append(times)
            log.info("  of round %d: %s", record.round, times)
            if advised := advice(self._times):
                log.info(advised)

    def _page_due(self, finished: int) -> bool:
        """Whether there are new scores after this round, or the page takes little time."""
        since = time.monotonic() - self._page_written
        return self._config.scores_due(finished) or since > _RARELY * self._page_seconds

    def _write_page(self) -> None:
        from huscf_flwr.report.page import write_page

        began = time.monotonic()
        with self._spared("report.html"):
            write_page(self.folder)
        self._page_written = time.monotonic()
        self._page_seconds = self._page_written - began

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """Around the writing of a file that the run can do without: errors become a warning."""
        try:
            yield
        except Exception as error:  # whatever it is, training goes on
            log.warning("%s is not written: %s: %s", name, type(error).__name__, cause(error))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.folder / name, content)

    def _metrics(self, record: RoundRecord) -> Iterator[dict[str, Any]]:
        """The round's lines of metrics.csv."""
        costs = record.costs
        for (domain, cluster), members in record.by_domain_and_cluster().items():
            yield {
                **dict(zip(PLACE, (record.round, domain, cluster), strict=True)),
                **record.score_values(domain, cluster),
                "generator_loss": np.mean([member.generator_loss for member in members]),
                "discriminator_loss": np.mean([member.discriminator_loss for member in members]),
                "seconds": record.seconds,
                "client_megabytes": (costs.sent_bytes + costs.received_bytes) / 1e6,
                "client_gflops": costs.flops / 1e9,
            }

    def _members(self, record: RoundRecord) -> Iterator[Member]:
        """The round's lines of clusters.csv."""
        for client in record.clients:
            info = client.info
            yield Member(
                record.round,
                info.number,
                client.cluster,
                client.kld,
                client.weight,
                info.domain,
                info.size,
                "" if info.cut is None else str(info.cut),
                self._label_counts(info),
            )

    def _label_counts(self, info: ClientInfo) -> tuple[int, ...]:
        """How many images of each class a client was dealt; empty where the data is its own.

        Worked out from the run config: clients do not send these counts.
        """
        if info.part is None:
            return ()
        partition, partitions = info.part
        if self._label_table is None:
            self._label_table = label_counts(self._data, partitions)
        return tuple(self._label_table[partition].tolist())

    def _local_privacy(self) -> dict[str, Any] | None:
        """What the noise that clients add promises; None where they add none."""
        noise = self._config.local_noise
        return None if noise is None else vars(local_privacy(noise, self._config.image_format))

    def _round_line(self, record: RoundRecord) -> str:
        losses = np.mean(
            [[c.generator_loss, c.discriminator_loss] for c in record.clients], axis=0
        )
        sizes: dict[int, int] = {}
        for client in record.clients:
            sizes[client.cluster] = sizes.get(client.cluster, 0) + 1
        rounds = self._config.num_server_rounds
        line = (
            f"round {record.round}/{rounds}  {record.seconds:.1f} s{self._to_go(record)}  "
            f"generator loss {losses[0]:.3f}  discriminator loss {losses[1]:.3f}  clusters "
            + " ".join(f"{cluster}:{size}" for cluster, size in sorted(sizes.items()))
        )
        if scores := record.main_scores():
            line += "  " + "; ".join(f"{d}: {s}" for d, s in scores.items())
        if record.failures:
            line += f"  without client {', '.join(map(str, sorted(record.failures)))}"
        return line

    def _to_go(self, record: RoundRecord) -> str:
        """How long the rounds that are left will take, by those of this process and scores."""
        left = self._config.num_server_rounds - record.round
        seconds = (time.monotonic() - self._first_round_began) / self._rounds_here * left
        return f", about {in_words(seconds)} to go" if left else ""

    def _generators(self, record: RoundRecord) -> dict[int, Generator]:
        config = self._config
        return {c: Generator(config.net_spec, s, config.sound) for c, s in record.models.items()}

    def _append(
        self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
    ) -> None:
        """Add lines to a table; of what a row has, those values that are in `columns`."""
        path = self.folder / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(columns)
            writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else value
