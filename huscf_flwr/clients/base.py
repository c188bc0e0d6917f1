"""What all clients share: properties, a round's beginning and end, scores, lasting state.

A client is made anew for every message; what lasts (optimiser state, place in the data stream)
lives in `context.state`. Images and labels are read in here; none is sent as such.
"""

import io
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from flwr.app import ConfigRecord, Context
from flwr.client import NumPyClient
from flwr.common import Config, NDArrays, Scalar

from huscf_flwr.clients.insisting import insist
from huscf_flwr.clients.kept_state import ClientState, load_state, save_state
from huscf_flwr.clients.own_data import own_data
from huscf_flwr.clients.secret import own_secret, shown_as
from huscf_flwr.clustering.probe import IMAGES, first_outputs
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import BatchStream, LabelledImages, to_unit
from huscf_flwr.data.draws import Draws, Purpose, secretly, seeded
from huscf_flwr.data.partition import check_size, client_data
from huscf_flwr.data.sources import all_own, load_own
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.nets import (
    DISC,
    GEN,
    NetShapes,
    PartialGAN,
    State,
    from_arrays,
    net_shapes,
    state_names,
    to_arrays,
)
from huscf_flwr.nets.generator import Generator
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import ClientHalf, ClientTraining
from huscf_flwr.system.cpu import peak_memory_mb

log = logging.getLogger(__name__)


class GANHalf(ClientHalf, Protocol):
    """A client's half whose iterations return `Losses`; its nets go back to the strategy."""

    @property
    def nets(self) -> PartialGAN:
        """The client's blocks."""
        ...

    @property
    def optimisers(self) -> Optimisers:
        """Of these blocks; their state lasts from round to round."""
        ...


@dataclass(frozen=True)
class ClientImages:
    """What a client trains on.

    Attributes
    ----------
    train: its images.
    domain: name of the domain it was dealt, or empty where the data is the node's own.
    """

    train: LabelledImages
    domain: str


@contextmanager
def _named(client: int) -> Iterator[None]:
    """Errors name the client, and what kind they are: all that Flower passes on is text."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"client {client}: {type(error).__name__}: {error}") from error


class GANClient(NumPyClient, ABC):
    """What all clients share: data, properties, and state from one message to the next."""

    adds_noise: ClassVar[bool] = True
    """Whether it does as `LocalNoise` says; not where it gets generated images from elsewhere."""

    def __init__(self, context: Context) -> None:
        """Read the run config; data is loaded by the first message that needs it.

        Raises
        ------
        UserError: something in the run config is wrong.
        """
        self.context = context
        self.config = RunConfig.from_mapping(context.run_config)
        self.startup_s = 0.0
        """Seconds that a process took to start for this message, where one did."""
        self._size = 0
        self._training_s = 0.0

    @property
    def shapes(self) -> NetShapes:
        """Of the run's net."""
        return net_shapes(self.config.net_spec)

    def _heed(self, config: Config) -> None:
        """Take from the server what the run config leaves to the data."""
        if self.config.found.keys() <= config.keys():
            self.config = self.config.told(config)

    @abstractmethod
    def half(self, state: State, config: Config) -> GANHalf:
        """What this client trains in the round that `config` describes, beginning with `state`."""

    @abstractmethod
    def train(self, part: ClientTraining, config: Config) -> None:
        """Train the round with a server elsewhere, if there is one."""

    @abstractmethod
    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        """Indices of the blocks this client holds in the round that `config` describes."""

    def handed(self, config: Config) -> list[str]:
        """Names of what the client is handed at the beginning of that round, sorted."""
        return state_names(self.config.net_spec, self.own_blocks(config))

    def get_properties(self, config: Config) -> dict[str, Scalar]:
        """Who this is and how much data it has.

        Returns
        -------
        partition, partitions: place in the federation, -1 where the node has none; size: training
        images; domain: name, or empty if the data is the node's own. Or error: what is wrong with
        the data or the run config, in one line.
        """
        place: dict[str, Scalar] = {
            "partition": int(self.context.node_config.get("partition-id", -1)),
            "partitions": int(self.context.node_config.get("num-partitions", -1)),
        }
        try:
            self._heed(config)
            self._insist(now=False)
            found = self._images(config)
        except UserError as error:
            return {**place, "error": str(error)}
        return {**place, "size": len(found.train), "domain": found.domain}

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train for one round: `begin`, `train`, `finish`.

        Override `begin`, `half` or `finish`, not `fit` or `train`: an engine that drives many
        clients in one process trains what `begin` gave step by step.

        Parameters
        ----------
        parameters: values of the client's own blocks, in the order of their names.
        config: client (its number), round, iterations, base-dir, where its state is kept (see
            `kept_state`), and what `half` needs.

        Raises
        ------
        RuntimeError: training failed; the message names the client and the cause.
        """
        part = self.begin(parameters, config)
        began = time.monotonic()
        with _named(int(config["client"])):
            self.train(part, config)
        self._training_s = time.monotonic() - began
        return self.finish(part, config)

    def begin(self, parameters: NDArrays, config: Config) -> ClientTraining:
        """Get ready for a round; see `fit`."""
        client = int(config["client"])
        with _named(client):
            self._heed(config)
            stream = self.stream(config)
            half = self.half(from_arrays(self.handed(config), parameters), config)
            self._take_up(half, config)
            self._size = len(stream)
            batches = stream.starting_at(self._iterations_before(config))
            return ClientTraining(half, batches, int(config["iterations"]))

    def stream(self, config: Config) -> BatchStream:
        """The batches that it trains on, round after round; raises `UserError` without data."""
        return BatchStream(
            self._data(config).train,
            batch_size=self.config.batch_size,
            latent_size=self.shapes.latent_size,
            draws=self._draws(int(config["client"])),
            noise=self.config.local_noise,
        )

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """What the client returns from a round that was trained; see `fit`."""
        client = int(config["client"])
        if not part.results:
            raise RuntimeError(f"client {client}: all {part.iterations} iterations were lost")
        with _named(client):
            half: GANHalf = part.half  # type: ignore[assignment]
            done = self._iterations_before(config) + part.iterations
            lasting = ClientState(done, half.optimisers.live()).packed()
            self._note_progress(done, int(config["round"]))
            self.context.state["optimisers"] = ConfigRecord({"moments": lasting})
            save_state(config, lasting)
            mean = Losses.mean(part.results)
            metrics: dict[str, Scalar] = {
                "generator-loss": mean.generator,
                "discriminator-loss": mean.discriminator,
                "peak-memory-mb": peak_memory_mb(),
                "startup-seconds": self.startup_s,
                "training-seconds": self._training_s,
            }
            return to_arrays(half.nets.state_dict()), self._size, metrics

    def evaluate(
        self, parameters: NDArrays, config: Config
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Answer a probe, see `_probe`; or else score a whole generator on this node's own images,
        with a classifier trained on them.

        Parameters
        ----------
        parameters: values of all `gen` blocks, in the order of their names.
        config: client (its number), and utility: whether to train a classifier on generated
            images, too.

        Returns
        -------
        The Fréchet distance, the number of held-out images, and scores by name: those of
        `Scores.values`, what real images get (`<name>_real`), the metrics of utility if due, and
        missing_classes, how many have training images and none held out. Numbers only.

        Raises
        ------
        RuntimeError: it cannot be scored; the message names the client and the cause.
        """
        client = int(config["client"])
        with _named(client):
            self._heed(config)
        run = self.config
        if "probe" in config:
            with _named(client):
                return 0.0, *self._probe(parameters, config)
        with _named(client):
            self._insist(now=False)
            if run.local_noise is not None:
                raise UserError("scores would be of its images without noise")
            names = state_names(run.net_spec, {GEN: range(len(self.shapes.gen))})
            generator = Generator(run.net_spec, from_arrays(names, parameters))
            path = str(self.context.node_config["data"])
            with own_data(path):
                own = load_own(path, run.image_format, validation=run.on_validation)
                evaluator = Evaluator(own, run.num_classes, run.seed, run.recipe)
                if config["utility"]:
                    scores = evaluator.full(generator, run.utility_images)
                else:
                    scores = evaluator.cheap(generator)
        found: dict[str, Scalar] = {
            **scores.values(),
            **scores.on_real(),
            **(scores.utility.metrics if scores.utility else {}),
            "missing_classes": len(own.missing_classes),
        }
        return scores.frechet.value, len(evaluator.domain.test), found

    def _probe(self, parameters: NDArrays, config: Config) -> tuple[int, dict[str, Scalar]]:
        """What the discriminator's first blocks make of some of the client's images.

        Parameters
        ----------
        parameters: values of these blocks, in the order of their names.
        config: client (its number), probe: how many blocks, base-dir.

        Returns
        -------
        How many images, and outputs: float32 (images, *features), as numpy writes a file.
        """
        run, blocks = self.config, {DISC: range(int(config["probe"]))}
        state = from_arrays(state_names(run.net_spec, blocks), parameters)
        nets = PartialGAN(run.net_spec, state, gen=(), disc=blocks[DISC]).eval()
        data = self._data(config).train
        random = self._draws(int(config["client"]))(Purpose.PROBE)
        chosen = torch.from_numpy(random.permutation(len(data))[:IMAGES])
        outputs = first_outputs(nets, to_unit(data.images[chosen]), run.num_classes)
        file = io.BytesIO()
        np.save(file, outputs.numpy(), allow_pickle=False)
        return len(chosen), {"outputs": file.getvalue()}

    def _draws(self, client: int) -> Draws:
        """The client's random numbers: where its data is its own, nobody else knows them."""
        if "data" not in self.context.node_config:
            return seeded(self.config.seed, client)
        return secretly(own_secret(), self.context.run_id, self.context.node_id)

    def _data(self, config: Config) -> ClientImages:
        """What it trains on: its images as they are, or with noise that each has for good.

        Raises
        ------
        UserError: its images cannot be had, or the run has less noise than the node insists on.
        """
        run, node = self.config, self.context.node_config
        self._insist(now=True)
        found = self._images(config)
        if run.local_noise is None:
            return found
        own = "data" in node  # then noise is the same in every run
        draws = secretly(own_secret()) if own else seeded(run.seed, int(node["partition-id"]))
        noisy = run.local_noise.for_good(to_unit(found.train.images), found.train.labels, draws)
        return ClientImages(LabelledImages(*noisy), found.domain)

    def _insist(self, *, now: bool) -> None:
        """Raise `UserError` if its data may not be used in this run; `now` it is shown."""
        insist(self.context.node_config, self.config)
        if self.config.local_noise is not None:
            if not self.adds_noise:
                raise UserError(
                    f"strategy={self.config.strategy}: has no image-noise or label-epsilon"
                )
            if "data" in self.context.node_config:
                shown_as(self.config.image_format, now=now)

    def _images(self, config: Config) -> ClientImages:
        """This client's images: the node's own, or its part of what the run config deals."""
        run, node = self.config, self.context.node_config
        if "data" in node:
            path = str(node["data"])
            with own_data(path):
                noisy = run.local_noise is not None
                load = all_own if noisy else load_own
                own = load(path, run.image_format, validation=run.on_validation).train
                check_size(own, path)
            return ClientImages(own, "")
        if not {"partition-id", "num-partitions"} <= node.keys():
            raise UserError(
                "this node has no data: start it with --node-config 'data=\"/path/own.npz\"', or "
                "with partition-id and num-partitions to get a part of the domains"
            )
        domain, part = client_data(
            run.data_settings(str(config.get("base-dir", "."))),
            client=int(node["partition-id"]),
            clients=int(node["num-partitions"]),
        )
        return ClientImages(part, domain.name)

    def _take_up(self, half: GANHalf, config: Config) -> None:
        """Go on with the moments of the round before, wherever they are.

        Those in the context are taken out of it: nobody holds them twice. Where this round is
        repeated, those there are of its first attempt.
        """
        records = self.context.state.config_records
        progress, lasting = records.get("progress"), records.pop("optimisers", None)
        round_ = int(config["round"])
        if progress and lasting and int(progress["round"]) < round_:  # type: ignore[arg-type]
            kept = ClientState.unpacked(lasting["moments"])  # type: ignore[arg-type]
            half.optimisers.load(kept.moments)
        elif (found := load_state(config)) is not None:
            try:
                half.optimisers.load(found.moments)
            except ValueError as error:
                log.warning("client %s: its optimisers begin afresh: %s", config["client"], error)
            self._note_progress(found.iterations, round_ - 1)
        else:
            records.pop("progress", None)

    def _note_progress(self, iterations: int, round_: int) -> None:
        progress = ConfigRecord({"iterations": iterations, "round": round_})
        self.context.state["progress"] = progress

    def _iterations_before(self, config: Config) -> int:
        record = self.context.state.config_records.get("progress")
        if record:
            return int(record["iterations"])  # type: ignore[arg-type]
        return int(config.get("iterations-before", 0))
