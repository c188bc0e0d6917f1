"""What goes into a strategy's combination of a round, and what comes out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from flwr.common import FitRes
from torch import Tensor

from huscf_flwr.clients.whole import ACTIVATION
from huscf_flwr.nets import State
from huscf_flwr.nets.losses import Losses
from huscf_flwr.report.records import ClientInfo, ClientRound
from strategies.answers import Trained, checked_update


@dataclass(frozen=True)
class Update:
    """What a client brings back from a round.

    Attributes
    ----------
    info: the client.
    began: what it began the round with: tensors by the names of `state`, with the same shapes.
    trained: what it returned, checked.
    activation: mean activation (C, H, W) of the discriminator's middle block on its real data, or
        None if the strategy did not see one.
    """

    info: ClientInfo
    began: State
    trained: Trained
    activation: Tensor | None

    @property
    def state(self) -> State:
        """Its own blocks, trained; finite and of the right shapes."""
        return self.trained.state

    @property
    def losses(self) -> Losses:
        """Its generator's and its discriminator's, means over the round's iterations."""
        return self.trained.losses

    def moved(self, names: Iterable[str]) -> Tensor:
        """By how much the values of these names have changed in the round.

        Returns
        -------
        float64 (values,), in the order of the names; integers, as batch norm counts, left out.
        """
        changes = [
            self.state[name].double() - self.began[name].double()
            for name in names
            if self.state[name].is_floating_point()
        ]
        return torch.cat([change.flatten() for change in changes])


def held_by_all(updates: Iterable[Update]) -> list[str]:
    """Names of the parameters and buffers that all of these clients hold, sorted.

    Where nets are cut, these are at least the first and the last block of both.
    """
    return sorted(set.intersection(*(set(update.state) for update in updates)))


def good_updates(
    given: Iterable[tuple[ClientInfo, State]],
    returned: Mapping[int, FitRes],
    due: Callable[[ClientInfo], State],
    activations: Mapping[int, Tensor],
    reasons: dict[int, str],
) -> list[Update]:
    """The updates of a round that can be combined, in the clients' order.

    Parameters
    ----------
    given: those that were told to train, and what each began with.
    returned: what came back, by number.
    due: a state with the names, shapes and dtypes that a client has to return.
    activations: those that the server saw, by number.
    reasons: why clients are left out, by number; those whose result is missing or bad are added.
    """
    updates = []
    for info, began in given:
        number = info.number
        if number in reasons:
            continue
        if number not in returned:
            reasons[number] = f"client {number}: its result did not arrive"
            continue
        try:
            trained = checked_update(returned[number], due(info))
        except ValueError as error:
            reasons[number] = f"client {number} returned a bad result: {error}"
            continue
        activation = activations.get(number, trained.also.get(ACTIVATION))
        updates.append(Update(info, began, trained, activation))
    return updates


@dataclass(frozen=True)
class Combined:
    """What a strategy makes of a round's updates.

    Attributes
    ----------
    models: the whole net of each cluster.
    assignment: cluster of each client.
    weights: weight of each client inside its cluster.
    klds: divergence of each client from the rest of its cluster.
    """

    models: dict[int, State]
    assignment: dict[int, int]
    weights: dict[int, float]
    klds: dict[int, float] = field(default_factory=dict)

    def part_of(self, update: Update) -> ClientRound:
        """A client's part in the round, for the records."""
        number, trained = update.info.number, update.trained
        return ClientRound(
            update.info,
            self.assignment[number],
            self.klds.get(number, 0.0),
            self.weights[number],
            trained.losses.generator,
            trained.losses.discriminator,
            trained.peak_memory_mb,
            trained.startup_s,
            trained.training_s,
            trained.seen,
        )
