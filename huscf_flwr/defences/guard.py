"""What clients send in an iteration, each against what the others send: nobody drowns them out.

How large activations and gradients are depends on where a net is cut and on how far it is
trained, and hardly on whose they are. So each client's are compared with what the same net, cut
alike, sends for generated images, and that ratio with the ratios of the others.
"""

import math
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from huscf_flwr.defences.beliefs import Beliefs
from huscf_flwr.defences.middle import Middle
from huscf_flwr.tensors import Checked, Tensors


@dataclass(frozen=True)
class Usual:
    """What is usual of one tensor that a client sends.

    Attributes
    ----------
    level: root mean square of its values for generated images.
    tolerance: so many times what is usual, at that time of training, a batch of a client may be;
        one of its samples three times that.
    """

    level: float
    tolerance: float


UsualFrames = Sequence[Mapping[str, Usual]]
"""By exchange and name of the tensor."""

_SAMPLE = 3.0
_PEERS = 3
_PACE = 0.1  # of the mean over iterations
_NOTHING = 1e-12
_GROSS = 2.0  # times the limit: less is cut, and not held against anybody
_FORGIVEN = 0.98
_MOST_STRIKES = 4.0
_ASTRAY = 2.0  # strikes
_CHECKED = 1 / 128  # of the iterations, drawn by lot: nobody knows which
_LEAST_COSINE = 0.15  # those of honest clients are more while nets have moved little
_LEAST_OF_OTHERS = (
    0.1  # of theirs, which fall as nets move; by how nets are cut it is 0.2 and more
)
_COMPARED = 8
_RECENT = 3  # iterations
_CHECKED_SAMPLES = 32
_NOWHERE = 1e-20  # norm of gradients
_MISLABELLED = (
    "trained on images that are not what their labels say, as far as nets can tell that it shares "
    "with others"
)


class Guard:
    """Knows how large each client's tensors have been, and where its gradients point.

    What is usual is the median over the clients of the same half of the server; where these are
    fewer than three, over all. A client is refused for the rest of the round if what it sends is
    twice as large as the limit exchange after exchange, or if its gradients, as far as the server
    can tell what they should be, point elsewhere than others', or if its images are not what their
    labels say.
    """

    def __init__(self, seed: int | None = None) -> None:
        """`seed` is of the lots that say who is looked at; without, nobody can know them."""
        self.turn = threading.Lock()
        """Whoever holds it asks: halves of the server are computed at the same time."""
        self._levels: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self._middles: defaultdict[str, dict[int | None, Middle]] = defaultdict(dict)
        """Of the ratios of a round, by tensor and by the first client of a half; None: of all."""
        self.met: set[int] = set()
        """Who has been looked at in its first iteration."""
        self.suspects: set[int] = set()
        """Who is looked at in every iteration."""
        self._asked: set[int] = set()
        """Who is looked at in its next one, for suspects to be compared with."""
        self._turns: Counter[int] = Counter()
        """Iterations of this round that clients have begun."""
        self._cosines: defaultdict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        """By exchange and client: the last one of its gradients, and in which iteration."""
        self._random = random.Random(seed)
        self._strikes: dict[int, float] = {}
        self.beliefs = Beliefs(self._random)
        self.refused: dict[int, str] = {}
        """Why clients are refused in this round, by number."""
        self.clipped: Counter[int] = Counter()
        """In how many exchanges of this round something was clipped, by client."""

    def begin_round(self) -> None:
        """Everybody is welcome again; who was refused is looked at."""
        self.suspects = set(self.refused)
        self._asked.clear()
        self._turns.clear()
        self._cosines.clear()
        self._strikes, self.refused = {}, {}
        self._middles.clear()
        self.beliefs.begin_round()
        self.clipped.clear()

    def bounded(
        self,
        exchange: int,
        requests: Mapping[int, Checked],
        usual: Mapping[int, UsualFrames],
        peers: Collection[int],
        name_of: str,
    ) -> dict[int, Tensors]:
        """What clients have sent, without those that are refused, samples brought within bounds.

        Parameters
        ----------
        exchange: which it is, from 0.
        requests: what clients send, by number.
        usual: what is usual of all clients of the round, by number; the same until it ends.
        peers: the clients of the same half of the server, the same until the round ends; no
            client is in two halves.
        name_of: the exchange's name, for the reason of a refusal.
        """
        found: dict[int, dict[str, Tensor]] = {
            client: {**sent} for client, sent in requests.items()
        }
        times: dict[int, float] = {}
        group = next(iter(peers)) if len(peers) >= _PEERS else None
        for name in next(iter(requests.values())):
            sizes = {client: _size(tensors, name) for client, tensors in requests.items()}
            key = f"{exchange}/{name}"
            levels, middles = self._levels[key], self._middles[key]
            for client, size in sizes.items():
                level = math.log(size.whole)
                levels[client] = (1 - _PACE) * levels.get(client, level) + _PACE * level
                ratio = self._ratio(key, client, usual[client][exchange][name])
                for middle in middles.values():
                    middle.update(client, ratio)
            if group not in middles:
                among = usual if group is None else peers
                middles[group] = Middle(
                    {c: self._ratio(key, c, usual[c][exchange][name]) for c in among}
                )
            now = middles[group].low()
            for client, size in sizes.items():
                own = usual[client][exchange][name]
                limit = own.tolerance * math.exp(now) * own.level
                if size.whole <= limit and size.largest <= _SAMPLE * limit:
                    continue
                times[client] = max(times.get(client, 0.0), size.whole / limit)
                found[client][name] = _within(limit, found[client][name])
        self.clipped.update(times.keys())
        for client in requests:
            self._strikes[client] = self._strikes.get(client, 0.0) * _FORGIVEN
            if times.get(client, 0.0) > _GROSS:
                excess = f"{times[client]:.3g} times as large as the most that is usual"
                self._strike(client, 1.0, f"sent values {excess}, in {name_of} and before")
        return {client: tensors for client, tensors in found.items() if client not in self.refused}

    def _ratio(self, key: str, client: int, usual: Usual) -> float:
        """How large its tensors have been, by what is usual; its logarithm."""
        levels = self._levels[key]
        # Who has sent nothing so far counts as usual, so that the first is bounded, too.
        return levels[client] - math.log(usual.level) if client in levels else 0.0

    def spot_checked(self, clients: Collection[int]) -> set[int]:
        """Whose gradients are looked at in an iteration of theirs that begins."""
        here = set(clients)
        first = here - self.met
        self.met |= first
        drawn = {client for client in clients if self._random.random() < _CHECKED}
        asked = self._asked & here
        self._asked -= asked
        self._turns.update(here)
        return first | drawn | asked | (self.suspects & here)

    def rows(self, samples: int) -> Tensor:
        """Samples of a batch that a spot check looks at, by lot."""
        count = min(samples, _CHECKED_SAMPLES)
        return torch.tensor(self._random.sample(range(samples), count))

    def spot_check(
        self,
        client: int,
        sent: Tensors,
        expected: Mapping[str, Tensor],
        rows: Tensor,
        name_of: str,
        others: Collection[int],
    ) -> None:
        """Strike a client whose gradients do not point to where they should.

        The expected ones are those of the nets that a round began with. The more nets have moved
        since, the less do anybody's gradients point there: so they are compared with others', and
        where too few of these are known, it is enough that they do not point to the other side.

        Parameters
        ----------
        client: its number.
        sent: its gradients.
        expected: about what those of `rows` should be, by the same names.
        rows: which samples.
        name_of: the exchange's name, for the reason of a refusal.
        others: clients of the round whose gradients can be looked at.
        """
        turn, known = self._turns[client], self._cosines[name_of]
        worst = min(_cosine(sent[name][rows], due) for name, due in expected.items())
        known[client] = turn, worst
        if worst >= _LEAST_COSINE:
            return
        rest = sorted(set(others) - {client} - self.refused.keys())
        then = [known[k] for k in rest if k in known]
        cosines = sorted(cosine for at, cosine in then if abs(at - turn) <= _RECENT)
        enough = len(cosines) >= _PEERS - 1
        usual = cosines[(len(cosines) - 1) // 2] if enough else 0.0
        if worst <= max(_LEAST_OF_OTHERS * usual, 0.0):
            reason = f"sent gradients that are not those of what it was sent, in {name_of}"
            self._strike(client, _ASTRAY, f"{reason} and before")
        elif enough or len(rest) < _PEERS - 1:
            self.suspects.discard(client)
            return
        self.suspects.add(client)
        self._asked.update(self._random.sample(rest, min(_COMPARED, len(rest))))

    def believe(self, client: int, belief: float, group: Collection[int]) -> None:
        """Take down a belief, see `Beliefs`, and refuse who is out of line in its group."""
        self.beliefs.add(client, belief)
        for outlier in self.beliefs.outliers(group):
            self.refused.setdefault(outlier, _MISLABELLED)

    def _strike(self, client: int, weight: float, reason: str) -> None:
        self._strikes[client] = self._strikes.get(client, 0.0) + weight
        if self._strikes[client] > _MOST_STRIKES:
            self.refused[client] = reason

    def state(self) -> dict[str, dict[int, float]]:
        """What it takes to go on."""
        return {key: dict(levels) for key, levels in self._levels.items()}

    def restore(self, state: Mapping[str, Mapping[int, float]]) -> None:
        """Take over what `state` gave."""
        self._levels = defaultdict(dict, {key: dict(levels) for key, levels in state.items()})
        self._middles.clear()


def _cosine(sent: Tensor, expected: Tensor) -> float:
    """1 where the expected one is next to nothing: it points nowhere."""
    due = expected.cpu().flatten().double()
    if float(due.norm()) < _NOWHERE:
        return 1.0
    found = sent.cpu().flatten().double()
    return float(due @ found / (due.norm() * found.norm().clamp(min=_NOTHING * due.norm())))


class _Size(NamedTuple):
    """Root mean squares: of all values, and of those of the largest sample."""

    whole: float
    largest: float


def _size(tensors: Checked, name: str) -> _Size:
    norms, count = tensors.norms[name], tensors[name].numel()
    whole = math.hypot(*norms) / math.sqrt(count)
    largest = max(norms) / math.sqrt(count / len(norms))
    return _Size(max(whole, _NOTHING), largest)


def _within(limit: float, tensor: Tensor) -> Tensor:
    """Its samples, each brought to where it may be, and then all."""
    flat = tensor.flatten(1)
    sizes = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64) / math.sqrt(flat.shape[1])
    factors = (_SAMPLE * limit / sizes.clamp(min=_NOTHING)).clamp(max=1.0)
    rest = float((factors * sizes).square().mean().sqrt())
    factors *= min(1.0, limit / max(rest, _NOTHING))
    of_samples: Tensor = factors.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
    return tensor * of_samples
