"""The in-process engine: Flower's server and all clients in one process, a thread per client.

The strategies and clients are those of `flwr run`; only the way between them differs. For sweeps,
tests and GPUs.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.common import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
)
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.clients import GANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.cpu import use_threads
from huscf_flwr.data.sources import load_domain
from huscf_flwr.report.writer import RunReport
from huscf_flwr.split.pace import Progress
from strategies import load_strategy
from strategies.base import GANStrategy
from strategies.server import GANServer

DEFAULT_CLIENTS = 8


class InProcessClient(ClientProxy):
    """A client in this process: made anew for each message, like Flower's, with lasting state."""

    def __init__(
        self,
        context: Context,
        make: Callable[[Context], GANClient],
        pool: threading.Semaphore | None = None,
    ) -> None:
        """A client that `make` makes; `pool` limits how many work at a time."""
        super().__init__(cid=str(context.node_id))
        self._context = context
        self._make = make
        self._pool = pool or threading.Semaphore()

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None
    ) -> GetPropertiesRes:
        with self._pool:
            use_threads(1)  # clients share the cores by being many
            return self._make(self._context).to_client().get_properties(ins)

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:
        with self._pool:
            use_threads(1)
            return self._make(self._context).to_client().fit(ins)

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None
    ) -> GetParametersRes:
        raise NotImplementedError("clients have no parameters between rounds")

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None
    ) -> EvaluateRes:
        with self._pool:
            use_threads(1)
            return self._make(self._context).to_client().evaluate(ins)

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None
    ) -> DisconnectRes:
        return DisconnectRes(reason="")


class Engine:
    """One run, in this process."""

    def __init__(self, config: RunConfig, base_dir: str) -> None:
        """Load the data and create the strategy and the clients; the folder comes with `run`.

        Raises
        ------
        UserError: something in the config or the data is wrong.
        """
        self._config = config
        clients = config.num_clients or DEFAULT_CLIENTS
        strategy_class = load_strategy(config.strategy)
        for source in config.data_settings(base_dir).sources:
            load_domain(source, config.image_format)  # once, not in every thread
        self.report = RunReport(config, base_dir)
        self.strategy: GANStrategy = strategy_class(config, self.report, base_dir, serve=False)
        # More clients at a time than an iteration batches would only hold memory and wait.
        at_a_time = max(1, config.max_batch // config.batch_size)
        self._server = GANServer(self.strategy, max_workers=min(clients, at_a_time))
        pool = threading.Semaphore(at_a_time)
        for partition in range(clients):
            context = Context(
                run_id=0,
                node_id=partition,
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config=config.as_dict(),
            )
            client = InProcessClient(context, self.strategy.local_client, pool)
            self._server.client_manager().register(client)

    def run(self) -> Path:
        """Train all rounds and write the results; the folder with them.

        Raises
        ------
        UserError: the folder cannot be written or holds a run already, or the run cannot go on,
            for a reason that the message gives.
        """
        self._server.fit(self._config.num_server_rounds, self._config.round_timeout)
        return self.report.folder

    def progress(self) -> Progress:
        """Where the running round stands."""
        return self.strategy.progress()
