"""The part of the strategies that says what a round costs: time, operations, bytes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, GEN
from huscf_flwr.planning.costs import NetCosts, net_costs
from huscf_flwr.planning.devices import Fleet
from huscf_flwr.planning.latency import unsplit_seconds
from huscf_flwr.report.records import ClientInfo, RoundCosts
from strategies.costs import ONE_GENERATOR, Passes, iteration_flops
from strategies.devices import ClientDevices
from strategies.roster import Roster


class CostingStrategy:
    """Counts what clients send, get and compute; subclasses set what it asks of them."""

    passes: ClassVar[Mapping[str, Passes]] = ONE_GENERATOR
    """How often a client passes through each net in an iteration."""
    config: RunConfig
    roster: Roster
    devices: ClientDevices
    _iterations: int
    _told_bytes: dict[int, int]

    def client_blocks(self, info: ClientInfo) -> Mapping[str, tuple[int, ...]]:
        """Indices of the blocks that a client trains, per net."""
        raise NotImplementedError

    def exchanged(self, info: ClientInfo) -> tuple[int, int]:
        """Bytes that a client sends and gets within an iteration."""
        return 0, 0

    def iteration_seconds(self, fleet: Fleet) -> float:
        """How long an iteration of this fleet should take, which shares it."""
        gen, disc = self.passes[GEN].forward, self.passes[DISC].forward
        return unsplit_seconds(self.costs, fleet, gen=gen, disc=disc)

    def fleet(self) -> Fleet | None:
        """The clients' devices and the server, as far as they are known."""
        clients = list(self.roster.clients.values())
        own = any(info.part is None and not info.device for info in clients)
        if own or not self.devices.planned:  # nobody knows what it has
            return None
        try:
            return self.devices.fleet(clients)
        except UserError:  # one says something impossible of its device: nothing depends on it
            return None

    def cohorts(self) -> list[float]:
        """How many clients are in each cohort; cohorts train one after the other."""
        return [self.config.taking_part(len(self.roster.clients))]

    def latency(self) -> dict[str, Any]:
        """How long an iteration and a round should take, for which devices; None: unknown."""
        fleet = self.fleet()
        if fleet is None:
            return dict.fromkeys(("predicted_s", "predicted_round_s", "predicted_for"))
        seconds = [self.iteration_seconds(fleet.of_size(size)) for size in self.cohorts()]
        return {
            "predicted_s": sum(seconds) / len(seconds),
            "predicted_round_s": sum(seconds) * self._iterations,
            "predicted_for": str(self.devices),
        }

    @property
    def costs(self) -> NetCosts:
        """What the nets cost, for one batch."""
        return net_costs(self.config.net_spec, self.config.batch_size, self.config.coding)

    def _costs(self, clients: list[ClientInfo], sent: Mapping[int, int]) -> RoundCosts:
        """What the round cost its clients, who sent so many bytes at its end."""
        found = []
        for info in clients:
            up, down = self.exchanged(info)
            flops = iteration_flops(self.costs, self.client_blocks(info), self.passes)
            found.append(
                RoundCosts(
                    sent[info.number] + self._iterations * up,
                    self._told_bytes[info.number] + self._iterations * down,
                    self._iterations * flops,
                )
            )
        return RoundCosts.mean(found)
