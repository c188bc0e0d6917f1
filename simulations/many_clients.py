"""What a client costs in the in-process engine, by how many there are.

    python -m simulations.benchmark clients

The default run, four iterations a round, on 64 images a client: where the built-in domains have
fewer, on all of them again and again. Times of scoring are left out; what is between iterations is
divided by clients and rounds, the page included. What finding the clusters takes, once in a run,
stands apart.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flwr.common import EvaluateIns, EvaluateRes, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.config import RunConfig
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import load_domain
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.system.cpu import peak_memory_mb, settle_memory
from simulations.engine import Engine
from strategies.failures import EvaluateFailures
from strategies.huscf import HuSCF

CLIENTS = (8, 64, 1000)
_ROUNDS, _ITERATIONS, _IMAGES = 4, 4, 64
_PROJECT = Path(__file__).resolve().parents[1]


class Cost(NamedTuple):
    """Milliseconds of a client iteration, and of a client between the iterations of two rounds;
    seconds of finding the clusters; peak memory in MiB; threads."""

    iteration_ms: float
    between_ms: float
    clustering_s: float
    memory_mb: float
    threads: int


class Timed(HuSCF):
    """Notes how long iterations, scoring and finding clusters take, and all else from the first
    round on."""

    training_s = scoring_s = clustering_s = began = asked = between_s = 0.0
    threads = 0

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        found = super().initialize_parameters(client_manager)
        self.began = time.monotonic()
        return found

    def train_in_process(
        self, clients: Mapping[int, ClientTraining], workers: Executor
    ) -> Mapping[int, BaseException]:
        began = time.monotonic()
        found = super().train_in_process(clients, workers)
        self.training_s += time.monotonic() - began
        self.threads = threading.active_count()
        return found

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        began = time.monotonic()
        found = super().evaluate(server_round, parameters)
        self.scoring_s += time.monotonic() - began
        return found

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        self.asked = time.monotonic()
        return super().configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: EvaluateFailures,
    ) -> tuple[float | None, dict[str, Scalar]]:
        found = super().aggregate_evaluate(server_round, results, failures)
        self.clustering_s += time.monotonic() - self.asked
        return found

    def finish(self) -> None:
        """The last round is over: its scores in full are not wanted."""
        known = self.training_s + self.scoring_s + self.clustering_s
        self.between_s = time.monotonic() - self.began - known


def cost(clients: int) -> Cost:
    """Of a client among so many, in this process."""
    settle_memory()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            strategy=f"{Timed.__module__}:{Timed.__name__}",
            domains=",".join(_domains(Path(folder), clients)),
            num_clients=clients,
            max_client_images=_IMAGES,
            num_server_rounds=_ROUNDS,
            local_epochs=_ITERATIONS,
            evaluate_every=2,
            output_dir=str(Path(folder) / "run"),
        )
        engine = Engine(config, folder)
        engine.run()
    timed = engine.strategy
    assert isinstance(timed, Timed)
    of_all = 1e3 / (_ROUNDS * clients)
    return Cost(
        of_all / _ITERATIONS * timed.training_s,
        of_all * timed.between_s,
        timed.clustering_s,
        peak_memory_mb(),
        timed.threads,
    )


def _domains(folder: Path, clients: int) -> list[str]:
    """Files of as many images of each built-in domain as its share of the clients needs."""
    found = []
    for source in RunConfig().sources("."):
        images = load_domain(source, ImageFormat(16, 1, 26)).train
        wanted = _IMAGES * clients // 2
        chosen = np.resize(np.arange(len(images)), wanted * 5 // 4)  # a fifth is held out
        path = folder / f"{source.name}.npz"
        shown = images.images[chosen].permute(0, 2, 3, 1).numpy()
        np.savez(path, images=shown, labels=images.labels[chosen].numpy())
        found.append(str(path))
    return found


def compare() -> None:
    """Print what a client costs, each number of clients in a process of its own."""
    print(
        f"{'clients':>8}{'ms an iteration':>17}{'ms between':>12}{'s for clusters':>16}"
        f"{'MiB each':>10}{'threads':>9}"
    )
    first: Cost | None = None
    for clients in CLIENTS:
        command = [sys.executable, "-m", __name__, str(clients)]
        done = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, check=True)
        found: Any = Cost(*json.loads(done.stdout.splitlines()[-1]))
        first = first or found
        more = (found.memory_mb - first.memory_mb) / max(1, clients - CLIENTS[0])
        print(
            f"{clients:8}{found.iteration_ms:17.1f}{found.between_ms:12.1f}"
            f"{found.clustering_s:16.1f}{more:10.2f}{found.threads:9}",
            flush=True,
        )


if __name__ == "__main__":
    logging.disable(logging.INFO)
    print(json.dumps(cost(int(sys.argv[1]))))
