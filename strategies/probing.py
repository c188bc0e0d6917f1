"""Asking clients for a probe, see `huscf_flwr.clustering.probe`, and what is made of it."""

import io
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from flwr.common import EvaluateIns, EvaluateRes, ndarrays_to_parameters
from flwr.server.client_proxy import ClientProxy
from torch import Tensor

from huscf_flwr.clustering.neighbours import looked_at
from huscf_flwr.clustering.probe import IMAGES, go_on
from huscf_flwr.config import RunConfig
from huscf_flwr.nets import DISC, NetShapes, PartialGAN, State, select_blocks, to_arrays
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.split.cuts import middle
from huscf_flwr.tensors import check_tensors
from strategies.roster import Present

_ACTIVATIONS = "activations/"  # names in a checkpoint


class Probing:
    """Probes clients by one discriminator, up to its middle block, and keeps what it saw."""

    def __init__(self, config: RunConfig, shapes: NetShapes) -> None:
        self._config = config
        self._shapes = shapes
        self._middle = middle(len(shapes.disc))
        self._disc: State = {}
        self.found: dict[int, np.ndarray] = {}
        """The middle block's outputs (images, C, H, W), by client; of many clients, of no more
        images than are looked at."""

    def state(self) -> State:
        """What it takes to go on, see `Checkpoint.probe`; empty before the first probe."""
        return self._disc | {
            f"{_ACTIVATIONS}{number}": torch.from_numpy(values)
            for number, values in self.found.items()
        }

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        self._disc = {n: value for n, value in state.items() if not n.startswith(_ACTIVATIONS)}
        self.found = {
            int(name.removeprefix(_ACTIVATIONS)): value.numpy()
            for name, value in state.items()
            if name.startswith(_ACTIVATIONS)
        }

    def instructions(
        self, clients: Present, model: State, base_dir: str
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Ask these clients for the outputs of their first blocks of the discriminator.

        It is that of `model` where this is the first probe, and stays the same from then on.
        """
        if not self._disc:
            self._disc = select_blocks(model, {DISC: range(self._middle + 1)})
        return [
            (
                proxy,
                EvaluateIns(
                    ndarrays_to_parameters(
                        to_arrays(select_blocks(self._disc, {DISC: range(self._held(info))}))
                    ),
                    {
                        "client": info.number,
                        "probe": self._held(info),
                        "base-dir": base_dir,
                        **self._config.found,
                    },
                ),
            )
            for proxy, info in clients.items()
        ]

    def take(
        self, clients: Iterable[ClientInfo], results: Mapping[int, EvaluateRes]
    ) -> dict[int, str]:
        """Add what was found of the clients that were asked; why there is nothing of others.

        `results` are by client number.
        """
        nets = PartialGAN(
            self._config.net_spec, self._disc, gen=(), disc=range(self._middle + 1)
        ).eval()
        reasons: dict[int, str] = {}
        for info in clients:
            if info.number not in results:
                reasons[info.number] = f"client {info.number} returned no probe"
                continue
            try:
                outputs = self._checked(info, results[info.number])
            except ValueError as error:
                reasons[info.number] = f"client {info.number} returned a bad probe: {error}"
                continue
            self.found[info.number] = go_on(nets, outputs, self._held(info)).numpy()
        most = looked_at(max(1, len(self.found)))
        self.found = {
            number: outputs if len(outputs) <= most else outputs[:most].copy()
            for number, outputs in sorted(self.found.items())
        }
        return reasons

    def _held(self, info: ClientInfo) -> int:
        """How many of the discriminator's first blocks a client runs."""
        return self._middle + 1 if info.cut is None else info.cut.disc_head

    def _checked(self, info: ClientInfo, result: EvaluateRes) -> Tensor:
        raw = result.metrics.get("outputs")
        if not isinstance(raw, bytes):
            raise ValueError("it has no outputs")
        try:
            outputs = torch.from_numpy(np.load(io.BytesIO(raw), allow_pickle=False))
        except Exception as error:  # whatever broken bytes make the reader raise
            raise ValueError(f"no array: {type(error).__name__}: {error}") from error
        # A client has as many images as it counts for, or more.
        rows = len(outputs) if outputs.dim() else 0
        images = min(max(rows, info.size), IMAGES)
        due = (images, *self._shapes.disc[self._held(info) - 1])
        check_tensors({"outputs": outputs}, {"outputs": due}, torch.float32)
        return outputs
