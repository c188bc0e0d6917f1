"""The server's half: the blocks between the cuts, run for many clients at once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State, net_shapes
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import ExchangeSpec
from huscf_flwr.split.cuts import Cut, middle
from huscf_flwr.split.exchanges import Exchange, exchange_specs
from huscf_flwr.split.joint_pass import ByClient, JointPass
from huscf_flwr.tensors import Tensors

STEPS = {Exchange.DISCRIMINATOR_STEP: DISC, Exchange.GENERATOR_STEP: GEN}
"""After which exchange which net takes its step."""


class Segments:
    """The server's blocks of both nets and their optimisers."""

    def __init__(
        self, nets: PartialGAN, shapes: NetShapes, *, batch_size: int, learning_rate: float
    ) -> None:
        """`nets` are the server's blocks, `shapes` those of the whole net."""
        self.nets = nets.train()
        self.shapes = shapes
        self.optimisers = Optimisers(nets, learning_rate)
        self._batch_size = batch_size

    @property
    def dtype(self) -> torch.dtype:
        return next(self.nets.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return next(self.nets.parameters()).device

    def exchanges(self, place: Cut) -> Sequence[ExchangeSpec]:
        return exchange_specs(place, self.shapes, self._batch_size)

    def state(self) -> State:
        """A copy of all parameters and buffers, on the CPU."""
        return {
            name: v.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, v in self.nets.state_dict().items()
        }

    def load(self, state: State) -> None:
        """Replace parameters and buffers by those of the same name; optimisers go on."""
        self.nets.load(state)

    def iteration(self, places: Mapping[int, Cut]) -> "Iteration":
        """Begin a training iteration of clients with these cuts, batched in this order."""
        return Iteration(self, places)


def all_segments(
    spec: NetSpec,
    state: State,
    *,
    batch_size: int,
    learning_rate: float,
    device: torch.device | str = "cpu",
) -> Segments:
    """All blocks that any cut leaves to the server, with parameters from `state`."""
    shapes, least = net_shapes(spec), Cut(1, 1, 1, 1)
    gen, disc = least.gen(shapes).server, least.disc(shapes).server
    nets = PartialGAN(spec, state, gen=gen, disc=disc, device=device)
    return Segments(nets, shapes, batch_size=batch_size, learning_rate=learning_rate)


class Iteration:
    """One training iteration: answers the six exchanges, in order, for the clients still in it."""

    def __init__(self, segments: Segments, cuts: Mapping[int, Cut]) -> None:
        self._segments = segments
        self._gen_spans = {k: cut.gen(segments.shapes) for k, cut in cuts.items()}
        self._disc_spans = {k: cut.disc(segments.shapes) for k, cut in cuts.items()}
        self._passes: dict[str, JointPass] = {}
        self.refused: dict[int, str] = {}
        """Nobody: see `procedure.ServerIteration`."""
        self.results: ByClient = {}
        """Mean over the batch of the discriminator's middle block's output on real data.

        Of all clients in each iteration: it costs little, whoever is at its last."""

    def answer(self, exchange: int, requests: Mapping[int, Tensors]) -> dict[int, Tensors]:
        """Compute one exchange for all clients at once.

        A client absent from `requests` has left: from here on its gradients count as zero.
        """
        by_name = _by_name(requests, self._segments.device)
        match Exchange(exchange):
            case Exchange.GENERATE:
                return _by_client({"fake": self._forward("generator", by_name["fake"])})
            case Exchange.DISCRIMINATE:
                fake = self._forward("fake", by_name["fake"])
                real = self._forward("real", by_name["real"])
                tapped = self._passes["real"].tapped
                self.results = {k: output.mean(dim=0) for k, output in tapped.items()}
                return _by_client({"fake": fake, "real": real})
            case Exchange.DISCRIMINATOR_STEP:
                passes = {name: self._passes.pop(name) for name in ("fake", "real")}
                fake, real = (passes[name].backward(by_name[name]) for name in passes)
                return _by_client({"fake": fake, "real": real})
            case Exchange.JUDGE:
                return _by_client({"fake": self._forward("judge", by_name["fake"])})
            case Exchange.JUDGE_GRADIENT:
                judged = self._passes.pop("judge").backward_to_inputs(by_name["fake"])
                return _by_client({"fake": judged})
            case Exchange.GENERATOR_STEP:
                generated = self._passes.pop("generator").backward(by_name["fake"])
                return _by_client({"fake": generated})

    def step(self, exchange: int) -> None:
        """Apply the gradients that an exchange brought."""
        net = STEPS.get(Exchange(exchange))
        if net is not None:
            self._segments.optimisers.step(net)

    def _forward(self, name: str, inputs: Mapping[int, Tensor]) -> ByClient:
        nets = self._segments.nets
        if name == "generator":
            made = JointPass(nets.gen, self._gen_spans, inputs)
        else:
            tap = middle(len(self._segments.shapes.disc)) if name != "judge" else None
            made = JointPass(nets.disc, self._disc_spans, inputs, tap)
        self._passes[name] = made
        return {k: output.detach() for k, output in made.outputs.items()}


def _by_name(requests: Mapping[int, Tensors], device: torch.device) -> dict[str, ByClient]:
    names = next(iter(requests.values())).keys()
    return {name: {k: t[name].to(device) for k, t in requests.items()} for name in names}


def _by_client(answers: Mapping[str, ByClient]) -> dict[int, Tensors]:
    clients = next(iter(answers.values())).keys()
    return {k: {name: values[k] for name, values in answers.items()} for k in clients}
