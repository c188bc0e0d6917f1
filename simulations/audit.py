"""Auditing a run of a simulation: its data is dealt again, and its clients are attacked."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.common import Config

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import BatchStream, LabelledImages, to_unit
from huscf_flwr.data.partition import DataSettings, client_data, label_counts
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.classifier import real_classifier
from huscf_flwr.nets import DISC, PartialGAN, State, net_shapes, select_blocks, whole_net
from huscf_flwr.nets.generator import Generator
from huscf_flwr.privacy.audit import DECODER_STEPS_A_KIND, Kind, Rebuilt, Served, Victim
from huscf_flwr.privacy.exposure import Exposure
from huscf_flwr.privacy.fellows import Learned, learned, sole_labels
from huscf_flwr.privacy.membership import Leak, alike, attack_membership
from huscf_flwr.privacy.similarity import SMALLEST
from huscf_flwr.report.checkpoint import Checkpoint, last_checkpoint
from huscf_flwr.report.files import AUDIT, Member, RunFiles, read_run
from huscf_flwr.report.grids import save_images
from huscf_flwr.report.page import write_page
from huscf_flwr.split.cuts import Cut, client_blocks
from huscf_flwr.split.segments import all_segments
from huscf_flwr.system.cpu import cores, use_threads
from huscf_flwr.system.files import replacing
from strategies import load_strategy

_COLUMNS = 12  # images in a strip
_ONE_CLIENTS = ("mdgan",)  # whose discriminators are each a client's, and none a cluster's


class Progress:
    """Told of each step; does nothing with it."""

    def total(self, steps: int) -> None:
        """How many there will be."""

    def step(self) -> None:
        """Called by several threads."""


_NOBODY = Progress()


def audit_run(
    folder: Path, base_dir: str, *, seed: int = 0, progress: Progress = _NOBODY
) -> dict[str, Any]:
    """Attack what a run has left; the results go into its summary.json, audit/ and report.html.

    Parameters
    ----------
    folder: of a finished run with data that was dealt.
    base_dir: that relative paths of its data start from.
    seed: of all that is random in the attacks.
    progress: told how many steps there will be, and of each.

    Returns
    -------
    What is in summary.json now under `audit`.

    Raises
    ------
    UserError: the run is not finished, its data was the clients' own or is not here, its images
        are too small to compare, or the results cannot be written.
    """
    started = time.monotonic()
    run = Audited(folder, base_dir, seed)
    kinds = run.kinds()
    progress.total(len(kinds) * DECODER_STEPS_A_KIND)
    with ThreadPoolExecutor(cores(), "audit", initializer=use_threads, initargs=(1,)) as pool:
        running = [pool.submit(run.attack, members, progress.step) for members in kinds]
        product = {c: pool.submit(run.leak, c) for c in run.clusters}
        fellows = [pool.submit(run.learned, *place) for place in run.places]
        rebuilt = [one for future in running for one in future.result()]
        found = run.as_dict(
            [one.exposure for one, _ in rebuilt],
            {cluster: future.result() for cluster, future in product.items()},
            [one for future in fellows for one in future.result()],
        )
    found["seconds"] = round(time.monotonic() - started, 1)
    run.write(found, rebuilt)
    return found


class Audited:
    """A run that is audited."""

    def __init__(self, folder: Path, base_dir: str, seed: int) -> None:
        self.files: RunFiles = read_run(folder)
        self.config = RunConfig.from_mapping(self.files.config)
        self._base = base_dir
        self._seed = seed
        if not self.files.summary:
            raise UserError(f"{folder}: this run is not finished")
        if self.config.image_size < SMALLEST:
            raise UserError(f"{folder}: images of fewer than {SMALLEST} pixels are not compared")
        self.data: DataSettings = self.config.data_settings(base_dir)
        self._partitions = int(self.files.summary.get("partitions") or 0)
        try:
            self.checkpoint: Checkpoint = last_checkpoint(folder)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        self._check_data()

    def _check_data(self) -> None:
        members = self.members
        if not self._partitions or not all(m.labels for m in members):
            raise UserError(
                f"{self.files.folder}: its clients had data of their own, which is not here; only "
                "runs of a simulation are audited"
            )
        dealt = label_counts(self.data, self._partitions)
        for member in members:
            if dealt[member.client].tolist() != list(member.labels):
                raise UserError(
                    f"{self.files.folder}: client {member.client} had other images than its "
                    "domain has now; paths of data start from where the run was started"
                )

    @property
    def members(self) -> list[Member]:
        """The clients of the round that the checkpoint is of."""
        return [m for m in self.files.members if m.round == self.checkpoint.round]

    @property
    def clusters(self) -> list[int]:
        return sorted({member.cluster for member in self.members})

    @property
    def places(self) -> list[tuple[int, str]]:
        """Clusters with the domains in each."""
        return sorted({(member.cluster, member.domain) for member in self.members})

    def kinds(self) -> list[list[Member]]:
        """Clients of the same blocks, cut and domain; none where they exchange no activations."""
        if not issubclass(load_strategy(self.config.strategy).client_class, SplitGANClient):
            return []
        found: dict[tuple[int, str, str], list[Member]] = {}
        for member in self.members:
            found.setdefault((member.cluster, member.cut, member.domain), []).append(member)
        return list(found.values())

    def attack(
        self, members: list[Member], step: Callable[[], None]
    ) -> list[tuple[Rebuilt, Victim]]:
        """What the server could see of clients of one kind, who are begun with as in a round."""
        auxiliary = self._domain(members[0].domain)[1]
        kind = Kind(self.served(members[0])[0], auxiliary, seed=self._seed, progress=step)
        found = []
        for member in members:
            victim = self._victim(member)
            found.append((kind.attack(victim), victim))
        return found

    def served(self, member: Member) -> tuple[Served, BatchStream]:
        """What the server knows of a client as it begins the next round, and its batches."""
        config, model = self.config, self.checkpoint.models[member.cluster]
        cut, shapes = Cut.parse(member.cut), net_shapes(config.net_spec)
        client, told = self._client(member)
        half = client.half(select_blocks(model, client_blocks(cut, shapes)), told)
        segments = all_segments(
            config.net_spec,
            model | self._servers(member.cluster),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
        )
        noise, size = config.local_noise, config.batch_size
        served = Served(half, segments, cut, shapes, noise, size, config.num_classes)
        return served, client.stream(told)

    def leak(self, cluster: int) -> Leak:
        """What a cluster's nets tell of the images that they were trained on."""
        random = np.random.default_rng((self._seed, cluster))
        pairs = []
        for domain in sorted({m.domain for m in self.members if m.cluster == cluster}):
            own = [
                client_data(self.data, client=m.client, clients=self._partitions)[1]
                for m in self.members
                if (m.cluster, m.domain) == (cluster, domain)
            ]
            joined = LabelledImages(
                torch.cat([part.images for part in own]), torch.cat([part.labels for part in own])
            )
            pairs.append(alike(joined, self._domain(domain)[1], random))
        spec, model = self.config.net_spec, self.checkpoint.models[cluster]
        disc: PartialGAN | None = None
        if self.config.strategy not in _ONE_CLIENTS:
            blocks = whole_net(net_shapes(spec))[DISC]
            disc = PartialGAN(spec, model, gen=(), disc=blocks).eval()
        return attack_membership(Generator(spec, model), disc, pairs, seed=self._seed)

    def learned(self, cluster: int, domain: str) -> list[Learned]:
        """What fellows in a cluster have of classes that one client of a domain alone has."""
        counts = {
            m.client: np.array(m.labels)
            for m in self.members
            if (m.cluster, m.domain) == (cluster, domain)
        }
        fellows = [m for m in self.members if m.cluster == cluster]
        sole = sole_labels(counts)
        if len(fellows) < 2 or not sole:
            return []
        train = self._domain(domain)[0]
        classifier = real_classifier(
            train, self.config.num_classes, self.config.seed, self.config.recipe
        )
        generator = Generator(self.config.net_spec, self.checkpoint.models[cluster])
        return learned(generator, classifier, sole, seed=self._seed)

    def write(self, found: Mapping[str, Any], rebuilt: list[tuple[Rebuilt, Victim]]) -> None:
        """Add what was found to the run's folder."""
        folder = self.files.folder
        summary = {**self.files.summary, AUDIT: found}
        try:
            (folder / AUDIT).mkdir(exist_ok=True)
            for one, victim in rebuilt:
                rows = [victim.images, *one.images.values()]
                columns = min(_COLUMNS, len(victim.images))
                strip = torch.cat([row[:columns] for row in rows])
                with replacing(folder / AUDIT / f"client-{victim.number}.png") as aside:
                    save_images(strip, aside, columns)
            with replacing(folder / "summary.json") as aside:
                aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error}") from None
        write_page(folder)

    def as_dict(
        self, exposures: list[Exposure], leaks: Mapping[int, Leak], fellows: list[Learned]
    ) -> dict[str, Any]:
        """What was found, for summary.json."""
        absent = set(range(self._partitions)) - {member.client for member in self.members}
        return {
            "after_round": self.checkpoint.round,
            "images_of_a_client": self.config.batch_size,
            "not_audited": sorted(absent),
            "seed": self._seed,
            "clients": {
                str(e.client): {
                    "domain": e.domain,
                    "cut": e.cut,
                    "images": e.word,
                    "attacks": {name: asdict(attack) for name, attack in e.attacks.items()},
                    "without_attack": {
                        "mean image of the class": asdict(e.mean_image),
                        "another image of the class": asdict(e.another),
                        "label by chance": e.chance,
                        "share of the most common label": e.most_common,
                    },
                    "labels_to_generate": e.to_generate,
                }
                for e in sorted(exposures, key=lambda e: e.client)
            },
            "product": {str(cluster): asdict(leak) for cluster, leak in leaks.items()},
            "fellows": [asdict(one) for one in fellows],
        }

    def _victim(self, member: Member) -> Victim:
        """The first batch of a client, as it trains on it, and what that really is."""
        _, stream = self.served(member)
        _, data = client_data(self.data, client=member.client, clients=self._partitions)
        real = data.select(stream.places(0))
        common = max(member.labels) / member.size
        return Victim(
            member.client, member.domain, stream[0], to_unit(real.images), real.labels, common
        )

    def _client(self, member: Member) -> tuple[SplitGANClient, Config]:
        client_class = load_strategy(self.config.strategy).client_class
        client = client_class(
            Context(
                run_id=0,
                node_id=member.client,
                node_config={"partition-id": member.client, "num-partitions": self._partitions},
                state=RecordDict(),
                run_config=replace(self.config, device="cpu").as_dict(),
            )
        )
        assert isinstance(client, SplitGANClient)
        return client, {"client": member.client, "cut": member.cut, "base-dir": self._base}

    def _servers(self, cluster: int) -> State:
        """The server's blocks that clients of a cluster train with, if not those of its net."""
        servers: Mapping[int, State] = self.checkpoint.servers
        found = servers.get(cluster, servers.get(0, {}))
        return {n: v for n, v in found.items() if n in self.checkpoint.models[cluster]}

    def _domain(self, name: str) -> tuple[LabelledImages, LabelledImages]:
        """Its training images, and those held out."""
        source = next(source for source in self.data.sources if source.name == name)
        domain = load_domain(source, self.config.image_format)
        return domain.train, domain.test
