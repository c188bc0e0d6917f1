"""The Flower clients: what a device does when the strategy asks it for its properties or a round.

A client is made anew for every message; what lasts (optimiser state, place in the data stream)
lives in `context.state`. It answers with parameters, properties, losses and scores; what
it sends in training besides, `split.client` says.
"""

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.client import NumPyClient
from flwr.common import Config, NDArrays, Scalar
from torch import Tensor

from huscf_flwr.batches import Batch, BatchStream, LabelledImages
from huscf_flwr.config import RunConfig
from huscf_flwr.cpu import peak_memory_mb, torch_device
from huscf_flwr.cuts import Cut, client_blocks
from huscf_flwr.data.partition import check_size, client_data
from huscf_flwr.data.sources import load_own
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.generator import Generator
from huscf_flwr.losses import Losses
from huscf_flwr.nets import (
    GEN,
    PartialGAN,
    State,
    from_arrays,
    net_shapes,
    state_names,
    to_arrays,
    whole_net,
)
from huscf_flwr.optim import Optimisers
from huscf_flwr.planning.devices import MEASURED, OVERHEAD, SPEEDS, read_profile
from huscf_flwr.planning.measure import measure_client
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.split.channel import Channel, SessionError
from huscf_flwr.split.client import SplitTrainer
from huscf_flwr.split.grpc import GrpcChannel
from huscf_flwr.unsplit import UnsplitTrainer

log = logging.getLogger(__name__)

OpenChannel = Callable[[Config], Channel]


@contextmanager
def own_data(path: str) -> Iterator[None]:
    """Where a node works with data of its own: its log has the errors, answers do not.

    Raises
    ------
    UserError: in place of any error, which goes to this node's log.
    """
    try:
        yield
    except Exception as error:
        log.error("data=%s cannot be used: %s: %s", path, type(error).__name__, error)
        raise UserError("its own data cannot be used; its log says why") from None


@dataclass(frozen=True)
class OwnData:
    """What a client trains on.

    Attributes
    ----------
    train: its images.
    domain: name of the domain it was dealt, or empty where the data is the node's own.
    """

    train: LabelledImages
    domain: str


class GANClient(NumPyClient, ABC):
    """What all clients share: data, properties, and state from one message to the next."""

    def __init__(self, context: Context) -> None:
        """Read the run config; data is loaded by the first message that needs it.

        Raises
        ------
        UserError: something in the run config is wrong.
        """
        self.context = context
        self.config = RunConfig.from_mapping(context.run_config)
        self.shapes = net_shapes(self.config.net_spec)

    @abstractmethod
    def train_round(
        self, state: State, config: Config, batches: Callable[[int], Batch]
    ) -> tuple[PartialGAN, list[Losses]]:
        """Train the round that `config` describes, from `state`; the nets and the losses."""

    @abstractmethod
    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        """Indices of the blocks this client holds in the round that `config` describes."""

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
            data = self._data(config)
        except UserError as error:
            return {**place, "error": str(error)}
        return {**place, "size": len(data.train), "domain": data.domain}

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train for one round.

        Parameters
        ----------
        parameters: values of the client's own blocks, in the order of their names.
        config: client (its number), round, iterations, base-dir, and what `train_round` needs.

        Raises
        ------
        RuntimeError: training failed; the message names the client and the cause.
        """
        client, iterations = int(config["client"]), int(config["iterations"])
        try:
            names = state_names(self.config.net_spec, self.own_blocks(config))
            stream = BatchStream(
                self._data(config).train,
                batch_size=self.config.batch_size,
                latent_size=self.shapes.latent_size,
                seed=self.config.seed,
                client=client,
            )
            start = self._iterations_before(config)
            nets, losses = self.train_round(
                from_arrays(names, parameters), config, stream.starting_at(start)
            )
        except Exception as error:
            raise RuntimeError(f"client {client}: {type(error).__name__}: {error}") from error
        if not losses:
            raise RuntimeError(f"client {client}: all {iterations} iterations were lost")
        self.context.state["progress"] = ConfigRecord({"iterations": start + iterations})
        mean = Losses.mean(losses)
        metrics: dict[str, Scalar] = {
            "generator-loss": mean.generator,
            "discriminator-loss": mean.discriminator,
            "peak-memory-mb": peak_memory_mb(),
        }
        return to_arrays(nets.state_dict()), len(stream), metrics

    def evaluate(
        self, parameters: NDArrays, config: Config
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Score a whole generator on this node's own images, with a classifier trained on them.

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
        client, run = int(config["client"]), self.config
        try:
            names = state_names(run.net_spec, {GEN: range(len(self.shapes.gen))})
            generator = Generator(run.net_spec, from_arrays(names, parameters))
            path = str(self.context.node_config["data"])
            with own_data(path):
                own = load_own(path, run.image_format)
                evaluator = Evaluator(own, run.num_classes, run.seed)
                if config["utility"]:
                    scores = evaluator.full(generator, run.utility_images)
                else:
                    scores = evaluator.cheap(generator)
        except Exception as error:
            raise RuntimeError(f"client {client}: {type(error).__name__}: {error}") from error
        found: dict[str, Scalar] = {
            **scores.values(),
            **scores.on_real(),
            **(scores.utility.metrics if scores.utility else {}),
            "missing_classes": len(own.missing_classes),
        }
        return scores.frechet.value, len(evaluator.domain.test), found

    def _data(self, config: Config) -> OwnData:
        """This client's images: the node's own, or its part of what the run config deals."""
        run, node = self.config, self.context.node_config
        if "data" in node:
            path = str(node["data"])
            with own_data(path):
                own = load_own(path, run.image_format).train
                check_size(own, path)
            return OwnData(own, "")
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
        return OwnData(part, domain.name)

    def _iterations_before(self, config: Config) -> int:
        record = self.context.state.config_records.get("progress")
        if record:
            return int(record["iterations"])  # type: ignore[arg-type]
        return int(config.get("iterations-before", 0))

    def load_optimisers(self, optimisers: Optimisers) -> None:
        """Go on with the moments of the round before, if there was one."""
        record = self.context.state.array_records.get("optimisers")
        if record:
            optimisers.load(record.to_torch_state_dict())

    def save_optimisers(self, optimisers: Optimisers) -> None:
        """Keep the moments for the next round."""
        state: OrderedDict[str, Tensor] = OrderedDict(optimisers.state())
        self.context.state["optimisers"] = ArrayRecord(state)


class SplitGANClient(GANClient):
    """Trains heads and tails, exchanging activations and gradients with the segment runner."""

    def __init__(self, context: Context, open_channel: OpenChannel | None = None) -> None:
        """See `GANClient`; `open_channel` opens the way to the runner, gRPC unless given."""
        super().__init__(context)
        self._open_channel = open_channel or self._dial

    def get_properties(self, config: Config) -> dict[str, Scalar]:
        """Who this is and, where the cuts are planned, what its device can do.

        Returns
        -------
        As `GANClient.get_properties`; and the device, by the keys of `planning.devices`, where the
        node states it (`--node-config 'profile="phone"'`, or both speeds), or where it is to be
        measured: then `config` has runner-address and token.
        """
        found = super().get_properties(config)
        if "error" in found or self.config.cuts not in SEARCHES:
            return found
        try:
            return {**found, **self._device(config)}
        except (UserError, SessionError) as error:
            return {**found, "error": str(error)}

    def _device(self, config: Config) -> dict[str, Scalar]:
        run, node = self.config, self.context.node_config
        if "profile" in node:
            return {"profile": str(node["profile"])}
        if any(key in node for key in SPEEDS):
            stated = read_profile("its own", node, "this node's --node-config")
            return dict(zip(SPEEDS, (stated.flops_per_s, stated.link_bytes_per_s), strict=True))
        if run.devices != MEASURED and not (run.devices == "auto" and "data" in node):
            return {}
        channel = self._open_channel(config)
        try:
            speed, link, overhead_s = measure_client(
                channel, run.net_spec, run.batch_size, torch_device(run.device)
            )
        finally:
            channel.close()
        return {**dict(zip(SPEEDS, (speed, link), strict=True)), OVERHEAD: overhead_s}

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return client_blocks(Cut.parse(str(config["cut"])), self.shapes)

    def train_round(
        self, state: State, config: Config, batches: Callable[[int], Batch]
    ) -> tuple[PartialGAN, list[Losses]]:
        trainer = SplitTrainer(
            self.config.net_spec,
            self.shapes,
            Cut.parse(str(config["cut"])),
            state,
            learning_rate=self.config.learning_rate,
            batch_size=self.config.batch_size,
            device=torch_device(self.config.device),
        )
        self.load_optimisers(trainer.optimisers)
        channel = self._open_channel(config)
        try:
            losses = trainer.train(
                channel,
                round_=int(config["round"]),
                iterations=int(config["iterations"]),
                batches=batches,
            )
        finally:
            channel.close()
        self.save_optimisers(trainer.optimisers)
        return trainer.nets, losses

    def _dial(self, config: Config) -> Channel:
        return GrpcChannel(
            str(config["runner-address"]),
            str(config["token"]),
            dial_timeout=self.config.straggler_timeout,
            round_timeout=self.config.round_timeout,
        )


class WholeGANClient(GANClient):
    """Trains whole nets on its own, as FedGAN's clients do."""

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return {net: tuple(indices) for net, indices in whole_net(self.shapes).items()}

    def train_round(
        self, state: State, config: Config, batches: Callable[[int], Batch]
    ) -> tuple[PartialGAN, list[Losses]]:
        trainer = UnsplitTrainer(
            self.config.net_spec,
            self.shapes,
            state,
            learning_rate=self.config.learning_rate,
            device=torch_device(self.config.device),
        )
        self.load_optimisers(trainer.optimisers)
        losses = trainer.train(iterations=int(config["iterations"]), batches=batches)
        self.save_optimisers(trainer.optimisers)
        return trainer.nets, losses
