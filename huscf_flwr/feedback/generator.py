"""The server's half: the generator, which learns by what clients' discriminators feed back."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.feedback.exchanges import JUDGED, LABELS, TRAINED, Exchange, exchange_specs
from huscf_flwr.nets import GEN, NetShapes, NetSpec, PartialGAN, State, run_blocks, whole_net
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import ExchangeSpec
from huscf_flwr.tensors import Tensors

_DRAWN = "drawn"


class GeneratorHalf:
    """All blocks of the generator, and its optimiser."""

    def __init__(
        self,
        spec: NetSpec,
        shapes: NetShapes,
        state: State,
        *,
        batch_size: int,
        learning_rate: float,
        seed: int,
        batches: Callable[[int], int],
        apart: bool,
        mean: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build it from `state`.

        Parameters
        ----------
        spec, shapes, state: of the whole net.
        batch_size, learning_rate, device: as everywhere.
        seed: of latent vectors and labels; all classes are equally likely.
        batches: how many batches are generated in an iteration of so many clients, who get them
            in turn.
        apart: whether each client gets two of them, the second to train its discriminator with.
        mean: whether feedback counts by its mean over clients, or by its sum.
        """
        blocks = whole_net(shapes)[GEN]
        self.nets = PartialGAN(spec, state, gen=blocks, disc=(), device=device).train()
        self.optimisers = Optimisers(self.nets, learning_rate)
        self.batches, self.apart, self.mean = batches, apart, mean
        self.device = torch.device(device)
        self._classes, self._latent_size = spec.num_classes, shapes.latent_size
        self._specs = exchange_specs(shapes, batch_size, apart=apart)
        self._batch_size = batch_size
        self._seed = seed
        self._drawn = 0

    @property
    def dtype(self) -> torch.dtype:
        return next(self.nets.parameters()).dtype

    def exchanges(self, place: None) -> Sequence[ExchangeSpec]:
        return self._specs

    def iteration(self, places: Mapping[int, None]) -> "Iteration":
        """Begin a training iteration of these clients."""
        return Iteration(self)

    def generate(self) -> tuple[Tensor, Tensor]:
        """The next batch: images (B, C, H, W) with their graph, and int64 labels (B,)."""
        random = np.random.default_rng((self._seed, 3, self._drawn))
        self._drawn += 1
        drawn = random.standard_normal((self._batch_size, self._latent_size), dtype=np.float32)
        labels = torch.from_numpy(random.integers(0, self._classes, self._batch_size))
        labels = labels.to(self.device)
        latent = torch.from_numpy(drawn).to(self.device, self.dtype)
        return run_blocks(self.nets.gen.values(), latent, labels), labels

    def state(self) -> State:
        """A copy of all parameters and buffers, on the CPU, and of how much was generated."""
        own = {
            name: v.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, v in self.nets.state_dict().items()
        }
        return {**own, _DRAWN: torch.tensor(self._drawn)}

    def load(self, state: State) -> None:
        """Replace them by those of the same name; the optimiser goes on."""
        self.nets.load(state)
        self._drawn = int(state[_DRAWN])


class Iteration:
    """One training iteration: answers both exchanges for the clients still in it."""

    def __init__(self, half: GeneratorHalf) -> None:
        self._half = half
        self._images: list[Tensor] = []
        self._judged: dict[int, int] = {}
        self.results: dict[int, Tensor] = {}
        self.refused: dict[int, str] = {}

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> dict[int, Tensors]:
        """Compute one exchange for all clients at once.

        A client absent from FEEDBACK has left: its feedback does not count.
        """
        if exchange == Exchange.GENERATE:
            return self._generate(list(requests))
        weight = 1 / len(requests) if self._half.mean else 1.0
        for number, images in enumerate(self._images):
            own = [r[JUDGED] for k, r in requests.items() if self._judged[k] == number]
            if own:
                images.backward(weight * torch.stack(own).to(self._half.device).sum(dim=0))
        return {client: {} for client in requests}

    def step(self, exchange: int) -> None:
        """Apply the gradients that FEEDBACK brought."""
        if exchange == Exchange.FEEDBACK:
            self._half.optimisers.step(GEN)

    def _generate(self, clients: Sequence[int]) -> dict[int, Tensors]:
        made = [self._half.generate() for _ in range(self._half.batches(len(clients)))]
        self._images = [images for images, _ in made]
        self._judged = {client: n % len(made) for n, client in enumerate(clients)}
        answers: dict[int, Tensors] = {}
        for client, number in self._judged.items():
            given = {JUDGED: made[number]}
            if self._half.apart:
                images, labels = made[(number + 1) % len(made)]
                given[TRAINED] = images.clone(), labels.clone()  # where there is one batch only
            answers[client] = {
                key: tensor
                for name, (images, labels) in given.items()
                for key, tensor in (
                    (name, images.detach()),
                    (name + LABELS, labels.to(images.dtype)),
                )
            }
        return answers
