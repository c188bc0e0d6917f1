"""Where the cores' time of an iteration goes: a strategy and a client that time themselves.

Of each client iteration, in milliseconds of a core: what is computed of the clients' blocks, and
of the server's; all other work of this machine (frames, threads and processes that wake each
other, rounds' beginnings and ends); and what cores had nothing to do. Together that is the time
that passes, of each core. The machine should have these cores alone, and do nothing else.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from flwr.common import Config, FitRes, NDArrays, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.procedure import ClientTraining, ServerIteration, Steps
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.segments import Segments
from huscf_flwr.tensors import Tensors
from strategies.huscf import HuSCF

FILE = "parts.json"
_COMPUTING = "computing-seconds"


class Parts(NamedTuple):
    """Of a client iteration: milliseconds that pass, and milliseconds of a core."""

    passing: float
    clients: float
    server: float
    other: float
    idle: float


class Watch:
    """What the cores do from now on, whoever they do it for."""

    def __init__(self) -> None:
        self._began, self._busy = time.monotonic(), _busy_s()

    def parts(self, iterations: int, clients_s: float, server_s: float) -> Parts:
        """Of so many client iterations until now, for whose blocks cores have computed so long."""
        passing, busy = time.monotonic() - self._began, _busy_s() - self._busy
        idle = len(os.sched_getaffinity(0)) * passing - busy
        other = busy - clients_s - server_s
        seconds = (passing, clients_s, server_s, max(0.0, other), max(0.0, idle))
        return Parts(*(1e3 * s / iterations for s in seconds))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


class TimedClient(SplitGANClient):
    """Says how long its thread has computed."""

    def begin(self, parameters: NDArrays, config: Config) -> ClientTraining:
        part = super().begin(parameters, config)
        self._computing = [0.0]
        vars(part.half)["iteration"] = _timed_steps(part.half.iteration, self._computing)
        return part

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        arrays, size, metrics = super().finish(part, config)
        return arrays, size, {**metrics, _COMPUTING: self._computing[0]}


def _timed_steps(iteration: Callable[[Any], Steps], spent: list[float]) -> Callable[[Any], Steps]:
    def timed(batch: Any) -> Steps:
        steps, answer = iteration(batch), None
        while True:
            began = time.thread_time()
            try:
                request = next(steps) if answer is None else steps.send(answer)
            except StopIteration as end:
                return end.value
            finally:
                spent[0] += time.thread_time() - began
            answer = yield request

    return timed


class TimedHuSCF(HuSCF):
    """Writes `Parts` of all rounds but the first, when processes begin, to the run's folder."""

    client_class = TimedClient
    _watch: Watch | None = None
    _iterations_then = 0
    _clients_s = 0.0

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        self._server_s = [0.0]
        return super().initialize_parameters(client_manager)

    def server_half(self, info: Any) -> Segments:
        half = super().server_half(info)
        if "iteration" not in vars(half):
            vars(half)["iteration"] = _timed_iterations(half.iteration, self._server_s)
        return half

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        found = super().aggregate_fit(server_round, results, failures)
        self._clients_s += sum(float(result.metrics[_COMPUTING]) for _, result in results)
        self._iterations_then += self._iterations * len(results)
        if server_round == 1:
            self._watch, self._clients_s, self._iterations_then = Watch(), 0.0, 0
            self._server_s[0] = 0.0
        elif server_round == self.config.num_server_rounds and self._watch is not None:
            parts = self._watch.parts(self._iterations_then, self._clients_s, self._server_s[0])
            (Path(self.report.folder) / FILE).write_text(json.dumps(parts))
        return found


def _timed_iterations(
    begin: Callable[[Mapping[int, Cut]], ServerIteration], spent: list[float]
) -> Callable[[Mapping[int, Cut]], ServerIteration]:
    return lambda places: _TimedIteration(begin(places), spent)


class _TimedIteration:
    """One of the server's, timed: what its thread computes, or for how long all its threads do."""

    _adding = threading.Lock()

    def __init__(self, iteration: ServerIteration, spent: list[float]) -> None:
        self._iteration = iteration
        self._spent = spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iteration, name)

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> Mapping[int, Tensors]:
        found: Mapping[int, Tensors] = self._timed(
            lambda: self._iteration.answer(exchange, requests)
        )
        return found

    def step(self, exchange: int) -> None:
        self._timed(lambda: self._iteration.step(exchange))

    def _timed(self, compute: Callable[[], Any]) -> Any:
        threads = torch.get_num_threads()
        clock = time.thread_time if threads == 1 else time.monotonic
        began = clock()
        try:
            return compute()
        finally:
            with self._adding:
                self._spent[0] += (clock() - began) * threads


def picture(roads: Mapping[str, Parts], path: Path) -> None:
    """A bar for each road, of the parts of its time."""
    from matplotlib.figure import Figure

    labels = {
        "clients": "clients' blocks",
        "server": "server's blocks",
        "other": "other work",
        "idle": "nothing to do",
    }
    colours = ("#1b6ca8", "#e08e0b", "#8a8a8a", "#e4e4e4")
    figure = Figure(figsize=(8, 0.8 + 0.55 * len(roads)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(roads)
    for name, colour in zip(labels, colours, strict=True):
        widths: Sequence[float] = [getattr(parts, name) for parts in roads.values()]
        axes.barh(list(roads), widths, left=left, color=colour, label=labels[name], height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of a core, of an iteration of one client")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)
