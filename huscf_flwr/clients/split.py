"""The client of HuSCF: it trains heads and tails, with the server's segments between them."""

import logging
from collections.abc import Mapping

import torch
from flwr.common import Config, NDArrays, Scalar

from huscf_flwr.clients.exchanging import ExchangingGANClient
from huscf_flwr.clients.kept_state import run_folder
from huscf_flwr.data.batches import to_unit
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import State, from_arrays
from huscf_flwr.planning.devices import MEASURED, OVERHEAD, SPEEDS, read_profile
from huscf_flwr.planning.measure import measure_client
from huscf_flwr.planning.search import SEARCHES
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.split.cuts import Cut, client_blocks
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.system.cpu import torch_device
from huscf_flwr.wire.channel import Channel, Loopback, SessionError

log = logging.getLogger(__name__)


class SplitGANClient(ExchangingGANClient):
    """Trains heads and tails, exchanging activations and gradients with the server."""

    def get_properties(self, config: Config) -> dict[str, Scalar]:
        """Who this is and, where the cuts are planned, what its device can do.

        Returns
        -------
        As `GANClient.get_properties`; and the device, by the keys of `planning.devices`, where the
        node states it (`--node-config 'profile="phone"'`, or both speeds), or where it is to be
        measured: then `config` has what `open_channel` needs.
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
        here = not config["runner-address"]  # then the runner is in this process
        channel: Channel = Loopback(run.coding) if here else self.open_channel(config)
        try:
            speed, link, overhead_s = measure_client(
                channel, run.net_spec, run.batch_size, torch_device(run.device), run.coding
            )
        finally:
            channel.close()
        return {**dict(zip(SPEEDS, (speed, link), strict=True)), OVERHEAD: overhead_s}

    def begin(self, parameters: NDArrays, config: Config) -> ClientTraining:
        part = super().begin(parameters, config)
        if self.config.audit_due(int(config["round"])):
            self._first = parameters, self._iterations_before(config)
        return part

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """As `GANClient.finish`; where an audit is due, also what the round's first batch told."""
        arrays, size, metrics = super().finish(part, config)
        if not self.config.audit_due(int(config["round"])):
            return arrays, size, metrics
        try:
            return arrays, size, {**metrics, **self._audited(config)}
        except Exception as error:  # whatever it is, the round is trained
            kind = type(error).__name__
            log.warning("client %s: not audited: %s: %s", config["client"], kind, cause(error))
            return arrays, size, metrics

    def _audited(self, config: Config) -> Mapping[str, Scalar]:
        # Here, since it is heavy, and rounds without an audit do without.
        from huscf_flwr.clients.auditing import audited
        from huscf_flwr.privacy.rebuilding import Sender, Victim

        run, client, cut = self.config, int(config["client"]), Cut.parse(str(config["cut"]))
        parameters, first = self._first
        stream, images = self.stream(config), self._images(config).train
        places = stream.places(first)
        rest = torch.ones(len(images), dtype=torch.bool)
        rest[places] = False
        real = images.select(places)
        half = self._half(from_arrays(self.handed(config), parameters), config, "cpu")
        own = "data" in self.context.node_config
        return audited(
            Sender(half, cut, self.shapes, None, run.num_classes),
            Victim(client, "", stream[first], to_unit(real.images), real.labels, None),
            images.select(rest.nonzero().flatten()),
            seed=run.seed,
            picture=run_folder(config) / f"audit-client-{client}.png" if own else None,
        )

    def own_blocks(self, config: Config) -> dict[str, tuple[int, ...]]:
        return client_blocks(Cut.parse(str(config["cut"])), self.shapes)

    def half(self, state: State, config: Config) -> HeadsAndTails:
        return self._half(state, config, torch_device(self.config.device))

    def _half(self, state: State, config: Config, device: torch.device | str) -> HeadsAndTails:
        return HeadsAndTails(
            self.config.net_spec,
            self.shapes,
            Cut.parse(str(config["cut"])),
            state,
            learning_rate=self.config.learning_rate,
            batch_size=self.config.batch_size,
            device=device,
        )
