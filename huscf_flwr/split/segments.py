"""The server's half of a training iteration: the blocks between the cuts, run for many clients.

Pure computation: no threads, no transport. `runner` decides which clients share an iteration.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from huscf_flwr.cuts import Span
from huscf_flwr.nets import DISC, GEN, PartialGAN, State
from huscf_flwr.optim import Optimisers
from huscf_flwr.split.frames import Exchange

ByClient = dict[int, Tensor]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One client of an iteration: where its nets are cut, and whether to keep its activation."""

    gen: Span
    disc: Span
    tap: bool = False


class JointPass:
    """One forward pass of several clients through the server's blocks of one net.

    A block runs once, on the concatenated batches of all clients that have it on the server, so
    batch-norm statistics are joint. Clients enter and leave at their own cuts.
    """

    def __init__(
        self,
        blocks: nn.ModuleDict,
        spans: Mapping[int, Span],
        inputs: Mapping[int, Tensor],
        tap: int | None = None,
    ) -> None:
        """Run the pass.

        Parameters
        ----------
        blocks: the server's blocks by index.
        spans: where each client's net is cut.
        inputs: head output of each client, `(B_k, *features)`; the order is the batch's order.
        tap: index of a block whose output is kept, as `tapped`, or None.
        """
        self._parameters = list(blocks.parameters())
        self._inputs = {k: x.detach().requires_grad_() for k, x in inputs.items()}
        self.tapped: ByClient = {}
        current: ByClient = dict(self._inputs)
        members: list[int] = []
        joint: Tensor | None = None
        for name, block in blocks.items():
            here = [k for k in inputs if int(name) in spans[k].server]
            if here != members:
                if joint is not None:
                    current.update(self._parts(joint, members))
                joint = torch.cat([current[k] for k in here]) if here else None
                members = here
            if joint is not None:
                joint = block(joint)
                if int(name) == tap:
                    self.tapped = self._parts(joint.detach(), members)
        if joint is not None:
            current.update(self._parts(joint, members))
        self.outputs = current

    def _parts(self, joint: Tensor, members: list[int]) -> ByClient:
        sizes = [self._inputs[k].shape[0] for k in members]
        return dict(zip(members, joint.split(sizes), strict=True))

    def backward(self, gradients: Mapping[int, Tensor]) -> ByClient:
        """Gradients at the head outputs; adds those of the blocks' parameters to `.grad`.

        A client without an entry in `gradients` counts as zero and gets none.
        """
        outputs = [self.outputs[k] for k in gradients]
        inputs = [self._inputs[k] for k in gradients]
        torch.autograd.backward(
            outputs, list(gradients.values()), inputs=[*inputs, *self._parameters]
        )
        return {k: x.grad for k, x in zip(gradients, inputs, strict=True) if x.grad is not None}

    def backward_to_inputs(self, gradients: Mapping[int, Tensor]) -> ByClient:
        """Gradients at the head outputs, leaving the blocks' parameters alone."""
        outputs = [self.outputs[k] for k in gradients]
        inputs = [self._inputs[k] for k in gradients]
        found = torch.autograd.grad(outputs, inputs, list(gradients.values()))
        return dict(zip(gradients, found, strict=True))


class Segments:
    """The server's blocks of both nets, their optimisers, and the middle block's activations."""

    def __init__(self, nets: PartialGAN, middle: int, learning_rate: float) -> None:
        """`middle` is the discriminator block whose activations clustering uses."""
        self.nets = nets.train()
        self.middle = middle
        self.optimisers = Optimisers(nets, learning_rate)

    def state(self) -> State:
        """A copy of all parameters and buffers, on the CPU."""
        return {name: v.detach().cpu().clone() for name, v in self.nets.state_dict().items()}

    def load(self, state: State) -> None:
        """Replace parameters and buffers by those of the same name; optimisers go on."""
        self.nets.load_state_dict({name: state[name] for name in self.nets.state_dict()})

    def iteration(self, members: Mapping[int, Member]) -> "Iteration":
        """Begin a training iteration of these clients, batched in this order."""
        return Iteration(self, members)


class Iteration:
    """One training iteration: answers the six exchanges, in order, for the clients still in it."""

    def __init__(self, segments: Segments, members: Mapping[int, Member]) -> None:
        self._segments = segments
        self._gen_spans = {k: member.gen for k, member in members.items()}
        self._disc_spans = {k: member.disc for k, member in members.items()}
        self._tapped = {k for k, member in members.items() if member.tap}
        self._passes: dict[str, JointPass] = {}
        self._gradients_of: str | None = None
        self.activations: ByClient = {}
        """Mean over the batch of the middle block's output on real data, of tapped clients."""

    def answer(self, exchange: Exchange, requests: Mapping[int, Tensors]) -> dict[int, Tensors]:
        """Compute one exchange for all clients at once.

        `requests` and the result hold, per client, the tensors `frames.frame_shapes` lists.
        A client absent from `requests` has left: from here on its gradients count as zero.
        """
        device = next(self._segments.nets.parameters()).device
        by_name = _by_name(requests, device)
        match exchange:
            case Exchange.GENERATE:
                return _by_client({"fake": self._forward("generator", by_name["fake"])})
            case Exchange.DISCRIMINATE:
                fake = self._forward("fake", by_name["fake"])
                real = self._forward("real", by_name["real"])
                middle = self._passes["real"].tapped
                self.activations = {k: middle[k].mean(dim=0) for k in self._tapped if k in middle}
                return _by_client({"fake": fake, "real": real})
            case Exchange.DISCRIMINATOR_STEP:
                fake = self._passes.pop("fake").backward(by_name["fake"])
                real = self._passes.pop("real").backward(by_name["real"])
                self._gradients_of = DISC
                return _by_client({"fake": fake, "real": real})
            case Exchange.JUDGE:
                return _by_client({"fake": self._forward("judge", by_name["fake"])})
            case Exchange.JUDGE_GRADIENT:
                judged = self._passes.pop("judge").backward_to_inputs(by_name["fake"])
                return _by_client({"fake": judged})
            case Exchange.GENERATOR_STEP:
                generated = self._passes.pop("generator").backward(by_name["fake"])
                self._gradients_of = GEN
                return _by_client({"fake": generated})

    def step(self) -> None:
        """Apply the gradients of the exchange answered last, if it brought any.

        Apart from `answer`, so that the clients need not wait for it.
        """
        if self._gradients_of is not None:
            self._segments.optimisers.step(self._gradients_of)
            self._gradients_of = None

    def _forward(self, name: str, inputs: Mapping[int, Tensor]) -> ByClient:
        nets = self._segments.nets
        if name == "generator":
            made = JointPass(nets.gen, self._gen_spans, inputs)
        else:
            tap = self._segments.middle if name == "real" and self._tapped else None
            made = JointPass(nets.disc, self._disc_spans, inputs, tap)
        self._passes[name] = made
        return {k: output.detach() for k, output in made.outputs.items()}


def _by_name(requests: Mapping[int, Tensors], device: torch.device) -> dict[str, ByClient]:
    names = next(iter(requests.values())).keys()
    return {name: {k: t[name].to(device) for k, t in requests.items()} for name in names}


def _by_client(answers: Mapping[str, ByClient]) -> dict[int, Tensors]:
    clients = next(iter(answers.values())).keys()
    return {k: {name: values[k] for name, values in answers.items()} for k in clients}
