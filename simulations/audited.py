"""A run of a simulation, as it is audited: its data is dealt again, its clients go on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.common import Config

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages, to_unit
from huscf_flwr.data.partition import DataSettings, client_data, label_counts
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.classifier import real_classifier
from huscf_flwr.nets import DISC, PartialGAN, State, net_shapes, select_blocks, whole_net
from huscf_flwr.nets.generator import Generator
from huscf_flwr.privacy.audit import Kind, Served
from huscf_flwr.privacy.fellows import Learned, learned, sole_labels
from huscf_flwr.privacy.membership import Leak, alike, attack_membership
from huscf_flwr.privacy.rebuilding import Rebuilt, Sender, Victim
from huscf_flwr.privacy.similarity import SMALLEST
from huscf_flwr.report.checkpoint import Checkpoint, last_checkpoint
from huscf_flwr.report.files import Member, RunFiles, read_run
from huscf_flwr.split.cuts import Cut, client_blocks
from huscf_flwr.split.segments import all_segments
from strategies import load_strategy

_ONE_CLIENTS = ("mdgan",)  # whose discriminators are each a client's, and none a cluster's


class Audited:
    """A finished run, the data that its clients had, and attacks on each part of it."""

    def __init__(self, folder: Path, base_dir: str, seed: int) -> None:
        """Read the run, and deal its data again; raises as `audit.audit_run`."""
        self.files: RunFiles = read_run(folder)
        self.config = RunConfig.from_mapping(self.files.config)
        self._base = base_dir
        self._seed = seed
        if not self.files.summary:
            raise UserError(f"{folder}: this run is not finished")
        if self.config.image_size < SMALLEST:
            raise UserError(f"{folder}: images of fewer than {SMALLEST} pixels are not compared")
        self.data: DataSettings = self.config.data_settings(base_dir)
        self.partitions = int(self.files.summary.get("partitions") or 0)
        try:
            self.checkpoint: Checkpoint = last_checkpoint(folder)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        self._check_data()

    def _check_data(self) -> None:
        members = self.members
        if not self.partitions or not all(m.labels for m in members):
            raise UserError(
                f"{self.files.folder}: its clients had data of their own, which is not here; only "
                "runs of a simulation are audited"
            )
        dealt = label_counts(self.data, self.partitions)
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
        kind = Kind(self.served(members[0]), auxiliary, seed=self._seed, progress=step)
        found = []
        for member in members:
            victim = self.victim(member)
            found.append((kind.attack(victim), victim))
        return found

    def served(self, member: Member) -> Served:
        """What the server knows of a client as it begins the next round."""
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
        sender = Sender(half, cut, shapes, config.local_noise, config.num_classes)
        return Served(sender, segments, config.batch_size)

    def leak(self, cluster: int) -> Leak:
        """What a cluster's nets tell of the images that they were trained on."""
        random = np.random.default_rng((self._seed, cluster))
        pairs = []
        for domain in sorted({m.domain for m in self.members if m.cluster == cluster}):
            own = [
                self._dealt(m) for m in self.members if (m.cluster, m.domain) == (cluster, domain)
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

    def victim(self, member: Member) -> Victim:
        """The first batch of a client, as it trains on it, and what that really is."""
        client, told = self._client(member)
        stream = client.stream(told)
        real = self._dealt(member).select(stream.places(0))
        common = max(member.labels) / member.size
        return Victim(
            member.client, member.domain, stream[0], to_unit(real.images), real.labels, common
        )

    def _dealt(self, member: Member) -> LabelledImages:
        """A client's images, without noise."""
        return client_data(self.data, client=member.client, clients=self.partitions)[1]

    def _client(self, member: Member) -> tuple[SplitGANClient, Config]:
        client_class = load_strategy(self.config.strategy).client_class
        client = client_class(
            Context(
                run_id=0,
                node_id=member.client,
                node_config={"partition-id": member.client, "num-partitions": self.partitions},
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
