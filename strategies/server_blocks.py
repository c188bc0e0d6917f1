"""The server's blocks of a run: one set for all clients, or one for each cluster."""

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from huscf_flwr.clustering.averages import weighted_average
from huscf_flwr.nets import State
from huscf_flwr.nets.trained import TrainedBlocks, load_whole, whole_state

_SHARED = 0

B = TypeVar("B", bound=TrainedBlocks)


class ServerBlocks(Generic[B]):
    """Segments by cluster, with their optimisers; those of all clusters are one where shared.

    A cluster that comes into being begins with a copy of what its members trained with so far,
    the optimisers' moments included: their mean, where members come from several clusters.
    """

    def __init__(self, make: Callable[[], B], *, shared: bool, afresh: bool = False) -> None:
        """Begin with one set.

        Parameters
        ----------
        make: gives segments as they are at the beginning of a run.
        shared: whether all clusters have the same.
        afresh: whether a cluster that is unknown begins like a run, or with a copy of the first.
        """
        self._make = make
        self._afresh = afresh
        self.shared = shared
        self._segments = {_SHARED: make()}

    def __len__(self) -> int:
        """How many sets there are."""
        return len(self._segments)

    def key(self, cluster: int) -> int:
        """By which a cluster's blocks go in states: its number, or one for all."""
        return _SHARED if self.shared else cluster

    def of(self, cluster: int) -> B:
        """Those of a cluster, which may be unknown."""
        key = self.key(cluster)
        if key not in self._segments:
            made = self._make()
            if not self._afresh:
                first = self._segments[min(self._segments)]
                made.load(first.state())
                made.optimisers.load(first.optimisers.state())
            self._segments[key] = made
        return self._segments[key]

    def update(
        self, states: Mapping[int, State], origins: Mapping[int, Mapping[int, float]]
    ) -> None:
        """Load new parameters after a round.

        Parameters
        ----------
        states: parameters and buffers, by key.
        origins: by the same keys, what the clients in question trained with before: the keys of
            that, each with the sum of these clients' weights.
        """
        moments = {
            key: _mean({old: self._segments[old].optimisers.state() for old in shares}, shares)
            for key, shares in origins.items()
            if shares.keys() != {key}
        }
        for key, state in states.items():
            if key not in self._segments:
                self._segments[key] = self._make()
            self._segments[key].load(state)
            if key in moments:
                self._segments[key].optimisers.load(moments[key])

    def keep(self, clusters: Collection[int]) -> None:
        """Forget the blocks of all other clusters."""
        keys = {self.key(cluster) for cluster in clusters}
        self._segments = {k: s for k, s in sorted(self._segments.items()) if k in keys}

    def checkpoint(self) -> dict[int, State]:
        """All of it, moments included, by key."""
        return {key: whole_state(segments) for key, segments in self._segments.items()}

    def restore(self, saved: Mapping[int, State], clients: Mapping[int, float]) -> None:
        """Take over what `checkpoint` gave, maybe of a run that shared where this one does not.

        `clients` counts those of each key; they weigh what has to be made one.
        """
        if self.shared and len(saved) > 1:
            saved = {_SHARED: _mean(saved, clients)}
        self._segments = {}
        for key, state in saved.items():
            self._segments[key] = self._make()
            load_whole(self._segments[key], state)


def _mean(states: Mapping[int, State], shares: Mapping[int, float]) -> State:
    """Of what all of them have."""
    common = set.intersection(*(set(state) for state in states.values()))
    total = sum(shares.get(key, 0.0) for key in states) or 1.0
    parts = [{name: state[name] for name in sorted(common)} for state in states.values()]
    return weighted_average(parts, [shares.get(key, 0.0) / total for key in states])
