"""What a strategy does about clients that are out of line, see `huscf_flwr.defences`."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from huscf_flwr.clustering.averages import Average, trimmed_average, weighted_average
from huscf_flwr.config import RunConfig
from huscf_flwr.defences.collapse import collapsed, variety
from huscf_flwr.defences.guard import Guard
from huscf_flwr.defences.moves import bounded, moves, too_far, usual_moves
from huscf_flwr.defences.sizes import bounded_shares
from huscf_flwr.nets import State
from huscf_flwr.run_keys import CLIPPED, TRIMMED
from strategies.updates import Update

log = logging.getLogger("huscf_flwr.strategy")
_MOST_OFFENCES = 3


class Defences:
    """Bounds what one client can do, and remembers who was out of line how often.

    Attributes
    ----------
    on: whether there are any.
    guard: looks at what clients send in an iteration.
    average: how updates are averaged.
    excluded: who is not to take part when a round is repeated.
    """

    def __init__(self, config: RunConfig, *, known_lots: bool) -> None:
        """`known_lots`: who is looked at follows from the run's seed; or nobody can know it."""
        self.on = config.defences
        self.guard = Guard(config.seed if known_lots else None)
        trimmed = self.on and config.aggregation == TRIMMED
        self.average: Average = trimmed_average if trimmed else weighted_average
        self.excluded: set[int] = set()
        self._clip = config.aggregation == CLIPPED
        self._spec = config.net_spec
        self._variety: dict[int, float] = {}
        self._cut: set[int] = set()
        self._blamed: dict[int, str] = {}
        self._offences: Counter[int] = Counter()

    def shares(self, weights: Mapping[int, float]) -> dict[int, float]:
        """Weights in a cluster, as they may be."""
        return bounded_shares(weights) if self.on else dict(weights)

    def in_line(
        self,
        updates: Sequence[Update],
        reasons: dict[int, str],
    ) -> list[Update]:
        """The updates of clients whose blocks moved about as far as those of others.

        Parameters
        ----------
        updates: what can be combined.
        reasons: why clients are left out, by number; those that moved much too far are added. Who
            moved somewhat too far is brought back, with `aggregation = "clipped"`.
        """
        if not self.on:
            return list(updates)
        self._cut, self._blamed = set(), dict(self.guard.refused)
        for number, refused in self.guard.refused.items():  # maybe when it had done its part
            reasons.setdefault(number, f"client {number} {refused}")
        updates = [update for update in updates if update.info.number not in self._blamed]
        moved = {u.info.number: moves(u.began, u.state) for u in updates}
        usual = usual_moves(moved.values())
        kept = []
        for update in updates:
            number = update.info.number
            if (reason := too_far(moved[number], usual)) is not None:
                reasons[number] = f"client {number} {reason}"
                self._blamed[number] = reason
                continue
            state = bounded(update.began, update.state, moved[number], usual)
            if state is not update.state:
                self._cut.add(number)
            if self._clip:
                update = replace(update, trained=replace(update.trained, state=state))
            kept.append(update)
        return kept

    def spoilt(self, before: Mapping[int, State], models: Mapping[int, State]) -> str | None:
        """Why a round is to be repeated that began and ended in these nets, by cluster, if it is.

        Then, `excluded` are those whose tensors or blocks had to be cut in it. Where nobody's had
        to, or it was repeated without them, a collapse is the training's own, and only nets that
        are no numbers are not accepted.
        """
        if not self.on:
            spoilt = [c for c, model in models.items() if not _finite(model)]
            return _no_numbers(spoilt) if spoilt else None
        self._variety = self._variety or self._varieties(before)
        found = self._varieties(models)
        gone = collapsed(self._variety, found)
        if not gone:
            for client in self.excluded:
                self._blamed[client] = "had to be cut in a round whose generator collapsed"
            self._variety, self.excluded = found, set()
            return None
        numbers = ", ".join(map(str, gone))
        suspects = [client for client, _ in self.guard.clipped.most_common()]
        suspects += sorted(self._cut.difference(suspects))
        if suspects and not self.excluded:
            self.excluded = set(suspects)
            names = ", ".join(map(str, suspects))
            return f"the generator of cluster {numbers} collapsed, maybe by client {names}"
        if any(value != value for value in found.values()):
            return _no_numbers(gone)
        log.warning("the generator of cluster %s makes all images alike: it collapsed", numbers)
        self._variety, self.excluded = found, set()
        return None

    def _varieties(self, models: Mapping[int, State]) -> dict[int, float]:
        return {cluster: variety(self._spec, model) for cluster, model in models.items()}

    def out_again_and_again(self) -> list[tuple[int, str]]:
        """Who was out of line in this round, which is accepted, once too often, and how."""
        self._offences.update(self._blamed.keys())
        return [
            (client, f"out of line in {_MOST_OFFENCES} rounds: in the last of them it {reason}")
            for client, reason in sorted(self._blamed.items())
            if self._offences[client] == _MOST_OFFENCES
        ]


def _finite(model: State) -> bool:
    return all(bool(value.isfinite().all()) for value in model.values())


def _no_numbers(clusters: Sequence[int]) -> str:
    return f"the nets of cluster {', '.join(map(str, clusters))} are no finite numbers"
