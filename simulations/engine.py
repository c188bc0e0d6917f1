"""The in-process engine: Flower's rounds with all clients in this process, without Ray.

The strategies and clients are those of `flwr run`; only the way between them differs: clients are
driven step by step by as many threads as there are cores. For sweeps, tests and GPUs.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, RecordDict
from flwr.common import (
    Code,
    Config,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    NDArrays,
    Parameters,
    ReconnectIns,
    Scalar,
    Status,
    parameters_to_ndarrays,
)
from flwr.server.client_proxy import ClientProxy
from flwr.server.server import FitResultsAndFailures

from huscf_flwr.clients.base import GANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.sources import load_domain
from huscf_flwr.errors import UserError
from huscf_flwr.nets.npy import to_parameters
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.report.writer import RunReport
from huscf_flwr.runner.pace import Progress
from huscf_flwr.system.cpu import cores, use_threads
from strategies import chosen
from strategies.base import GANStrategy
from strategies.server import GANServer

DEFAULT_CLIENTS = 8

T = TypeVar("T")


class InProcessClient(ClientProxy):
    """A client in this process: made anew for each message, like Flower's, with lasting state."""

    def __init__(self, context: Context, make: Callable[[Context], GANClient]) -> None:
        """A client that `make` makes."""
        super().__init__(cid=str(context.node_id))
        self._context = context
        self._make = make

    def begin(self, parameters: NDArrays, config: Config) -> "BegunTraining":
        """Get ready for a round, which is then trained step by step, with copies of these."""
        client = self._make(self._context)
        own = [array.copy() for array in parameters]
        return BegunTraining(client, client.begin(own, config), config)

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:
        raise NotImplementedError("rounds are trained step by step: see `begin`")

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None
    ) -> GetPropertiesRes:
        use_threads(1)  # clients share the cores by being many
        return self._make(self._context).to_client().get_properties(ins)

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None
    ) -> GetParametersRes:
        raise NotImplementedError("clients have no parameters between rounds")

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None
    ) -> EvaluateRes:
        use_threads(1)
        return self._make(self._context).to_client().evaluate(ins)

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None
    ) -> DisconnectRes:
        return DisconnectRes(reason="")


@dataclass(frozen=True)
class BegunTraining:
    """A round of one client that has begun."""

    client: GANClient
    part: ClientTraining
    config: Config

    @property
    def number(self) -> int:
        """The client's."""
        return int(self.config["client"])

    def finish(self) -> FitRes:
        """What the client returns."""
        arrays, size, metrics = self.client.finish(self.part, self.config)
        return FitRes(Status(Code.OK, ""), to_parameters(arrays), size, metrics)


def _begin(proxy: ClientProxy, parameters: NDArrays, config: Config) -> BegunTraining:
    assert isinstance(proxy, InProcessClient)
    return proxy.begin(parameters, config)


def _finish(trainings: dict[ClientProxy, BegunTraining], proxy: ClientProxy) -> FitRes:
    """What a client returns; with that, its nets and optimisers are gone."""
    return trainings.pop(proxy).finish()


class InProcessServer(GANServer):
    """Flower's rounds, in which all clients train together step by step."""

    def __init__(self, strategy: GANStrategy, workers: Executor) -> None:
        """Serve `strategy`; `workers` computes what clients compute."""
        super().__init__(strategy, max_workers=cores())
        self._workers = workers

    def train_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[Parameters | None, dict[str, Scalar], FitResultsAndFailures] | None:
        """A round; `timeout` does not limit it."""
        found = self._strategy.configure_fit(server_round, self.parameters, self.client_manager())
        shared = {id(ins.parameters): ins.parameters for _, ins in found}
        given = {key: parameters_to_ndarrays(parameters) for key, parameters in shared.items()}
        trainings, failures = self._all(
            {p: partial(_begin, p, given[id(ins.parameters)], ins.config) for p, ins in found}
        )
        del found, shared, given  # parameters, of which the clients have copies now
        out = self._strategy.train_in_process(
            {training.number: training.part for training in trainings.values()}, self._workers
        )
        failures += [RuntimeError(f"client {n}: {type(e).__name__}: {e}") for n, e in out.items()]
        done = [proxy for proxy, training in trainings.items() if training.number not in out]
        results, more = self._all({proxy: partial(_finish, trainings, proxy) for proxy in done})
        failures += more
        parameters, metrics = self._strategy.aggregate_fit(
            server_round, list(results.items()), failures
        )
        return parameters, metrics, ([], failures)  # results are in the models now

    def _all(
        self, actions: Mapping[ClientProxy, Callable[[], T]]
    ) -> tuple[dict[ClientProxy, T], list[tuple[ClientProxy, FitRes] | BaseException]]:
        """Let clients do something, all at once: what they returned, and what others raised."""
        running = {proxy: self._workers.submit(action) for proxy, action in actions.items()}
        errors = {proxy: future.exception() for proxy, future in running.items()}
        done = {proxy: running[proxy].result() for proxy, error in errors.items() if not error}
        return done, [error for error in errors.values() if error]


class Engine:
    """One run, in this process."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Load the data and create the strategy and the clients; the folder comes with `run`.

        Raises
        ------
        UserError: something in the config or the data is wrong, or an own client cannot be driven
            step by step.
        """
        strategy_class, config = chosen(config.settled(base_dir))
        self._config = config
        client_class = strategy_class.client_class
        if client_class.fit is not GANClient.fit:
            raise UserError(
                f"{client_class.__name__} overrides fit, which this engine does not call: "
                "override begin, half or finish"
            )
        for source in config.sources(base_dir):
            load_domain(source, config.image_format)  # once, not in every thread
        self.report = RunReport(config, base_dir)
        self.strategy: GANStrategy = strategy_class(config, self.report, base_dir, serve=False)
        before = self.strategy.restored
        dealt = before.partitions if before is not None else 0
        clients = config.num_clients or dealt or DEFAULT_CLIENTS
        if dealt and clients != dealt:
            raise UserError(
                f"num-clients={clients}: the run that this one goes on from dealt its data to "
                f"{dealt} clients"
            )
        run_config = config.as_dict()
        self._clients = [
            InProcessClient(
                Context(
                    run_id=0,
                    node_id=partition,
                    node_config={"partition-id": partition, "num-partitions": clients},
                    state=RecordDict(),
                    run_config=run_config,
                ),
                client_class,
            )
            for partition in range(clients)
        ]

    def run(self) -> Path:
        """Train all rounds and write the results; the folder with them.

        Raises
        ------
        UserError: the folder cannot be written or holds a run already, or the run cannot go on,
            for a reason that the message gives.
        """
        train_together(self.strategy, self._clients)
        return self.report.folder

    def progress(self) -> Progress:
        """Where the running round stands."""
        return self.strategy.progress()


def train_together(strategy: GANStrategy, clients: Iterable[InProcessClient]) -> None:
    """All rounds of a strategy that does not `serve`, with these clients, and its results.

    Raises
    ------
    UserError: see `Engine.run`.
    """
    config = strategy.config
    with _workers() as workers:
        server = InProcessServer(strategy, workers)
        for client in clients:
            server.client_manager().register(client)
        server.fit(config.num_server_rounds, config.round_timeout)


@contextmanager
def _workers() -> Iterator[Executor]:
    """A thread for each core, that computes with one thread each; the caller's uses all."""
    count = cores()
    started = threading.Barrier(count + 1)

    def start() -> None:
        use_threads(1)
        started.wait()

    with ThreadPoolExecutor(count, "client", initializer=start) as pool:
        for _ in range(count):
            pool.submit(lambda: None)
        started.wait()
        use_threads(count)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
