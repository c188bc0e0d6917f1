"""Whether clients train on images that are what their labels say.

All clients of a cluster begin a round with the same nets. Where these have seen images of the
same kind, they tell a client's real images from generated ones, as long as the labels are right
that these come with. How well they do is the *belief* in a client.
"""

import random
import statistics
from collections import defaultdict
from collections.abc import Collection

_LOOKS = 3
_OFTEN, _SELDOM = 1 / 4, 1 / 64  # of the iterations, before so many looks and after
_KNOWING = 0.2  # belief from which on nets know enough of their images
_LEAST = 0.35  # of what others have: honest clients had 0.46 and more
_PEERS = 3
_QUORUM = 3 / 4


class Beliefs:
    """Those of a round, taken in iterations that are drawn by lot."""

    def __init__(self, lots: random.Random) -> None:
        """`lots` say which iterations."""
        self._found: defaultdict[int, list[float]] = defaultdict(list)
        self._means: dict[int, float] = {}
        self._random = lots

    def begin_round(self) -> None:
        """Nobody is known."""
        self._found.clear()
        self._means.clear()

    def due(self, clients: Collection[int]) -> set[int]:
        """Whose is to be taken in an iteration of theirs."""
        return {
            client
            for client in clients
            if self._random.random() < (_SELDOM if self._known(client) else _OFTEN)
        }

    def add(self, client: int, belief: float) -> None:
        """How much more probably real than generated ones a batch of real images looks."""
        self._found[client].append(belief)
        if self._known(client):
            self._means[client] = statistics.fmean(self._found[client])

    def outliers(self, group: Collection[int]) -> set[int]:
        """Clients of whom nets that they share with a group, and know something, believe little.

        Each is compared with the others. Nobody, while a quarter of the group is not known, or
        there are fewer than three.
        """
        found = {c: self._means[c] for c in group if c in self._means}
        if len(found) < max(_PEERS, _QUORUM * len(group)):
            return set()
        order = sorted(found, key=lambda client: found[client])
        beliefs = [found[client] for client in order]
        middle, low = (len(order) - 2) // 2, set()
        for place, client in enumerate(order):
            usual = beliefs[middle if middle < place else middle + 1]  # of the others
            if usual > _KNOWING and beliefs[place] < _LEAST * usual:
                low.add(client)
        return low

    def _known(self, client: int) -> bool:
        return len(self._found[client]) >= _LOOKS
