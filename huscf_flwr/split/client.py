"""The client's half of a training iteration: heads, tails, losses. Plain torch, no Flower.

Only activations and gradients, as `frames.frame_shapes` lists them, go to the channel. Whoever
has them and the client's parameters can rebuild its images and labels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from huscf_flwr.batches import Batch
from huscf_flwr.cuts import Cut, client_blocks
from huscf_flwr.losses import Losses, loss_if_fake, loss_if_real
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State
from huscf_flwr.optim import Optimisers
from huscf_flwr.split.channel import Channel, IterationLost
from huscf_flwr.split.frames import Exchange, Frame, FrameKey, check_tensors, frame_shapes


class SplitTrainer:
    """Trains one client's heads and tails against the segments behind a channel."""

    def __init__(
        self,
        spec: NetSpec,
        shapes: NetShapes,
        cut: Cut,
        state: State,
        *,
        learning_rate: float,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the blocks that `cut` leaves on the client, with parameters from `state`."""
        own = client_blocks(cut, shapes)
        self.nets = PartialGAN(spec, state, gen=own[GEN], disc=own[DISC], device=device).train()
        gen, disc = cut.gen(shapes), cut.disc(shapes)
        self._gen_head = [self.nets.gen[str(i)] for i in range(gen.head)]
        self._gen_tail = [self.nets.gen[str(i)] for i in range(gen.tail, gen.length)]
        self._disc_head = [self.nets.disc[str(i)] for i in range(disc.head)]
        self._disc_tail = [self.nets.disc[str(i)] for i in range(disc.tail, disc.length)]
        self.optimisers = Optimisers(self.nets, learning_rate)
        self._answer_shapes = {
            exchange: answer
            for exchange, (_, answer) in frame_shapes(cut, shapes, batch_size).items()
        }
        self._device = torch.device(device)
        self._dtype = next(self.nets.parameters()).dtype

    def train(
        self, channel: Channel, *, round_: int, iterations: int, batches: Callable[[int], Batch]
    ) -> list[Losses]:
        """Train for a round; returns the losses of each iteration that was not lost.

        Parameters
        ----------
        channel: an open channel to the runner; the caller closes it.
        round_: number of the round, for the frames' headers.
        iterations: how many iterations the round has.
        batches: gives the batch of iteration i of this round.

        Raises
        ------
        SessionError: the runner ended this session, or cannot be reached any more.
        """
        losses = []
        for index in range(iterations):
            try:
                losses.append(self.iteration(channel, round_, index, batches(index)))
            except IterationLost:  # too late for the others; the next iteration is a new start
                self.optimisers.zero_grad()
        return losses

    def iteration(self, channel: Channel, round_: int, index: int, batch: Batch) -> Losses:
        """One training iteration, in six exchanges.

        Raises
        ------
        IterationLost: the others went on without this client.
        SessionError: see `train`.
        """

        def exchange(which: Exchange, **tensors: Tensor) -> dict[str, Tensor]:
            sent = {name: tensor.detach() for name, tensor in tensors.items()}
            answer = channel.exchange(Frame(FrameKey(round_, index, which), sent)).tensors
            # Others' values, multiplied by the segments: finite is all that can be asked of them.
            largest = torch.finfo(self._dtype).max
            check_tensors(answer, self._answer_shapes[which], self._dtype, largest)
            return {name: tensor.to(self._device) for name, tensor in answer.items()}

        images = batch.images.to(self._device, self._dtype)
        latent = batch.latent.to(self._device, self._dtype)
        labels = batch.labels.to(self._device)
        fake_labels = batch.fake_labels.to(self._device)

        gen_head = _run(self._gen_head, latent, fake_labels)
        generated = exchange(Exchange.GENERATE, fake=gen_head)["fake"].requires_grad_()
        fake_images = _run(self._gen_tail, generated)

        # Discriminator: fake and real pass it separately, as they do unsplit.
        fake_head = _run(self._disc_head, fake_images.detach(), fake_labels)
        real_head = _run(self._disc_head, images, labels)
        segment = exchange(Exchange.DISCRIMINATE, fake=fake_head, real=real_head)
        fake_tail = segment["fake"].requires_grad_()
        real_tail = segment["real"].requires_grad_()
        disc_loss = loss_if_fake(_run(self._disc_tail, fake_tail)) + loss_if_real(
            _run(self._disc_tail, real_tail)
        )
        disc_loss.backward()
        gradients = exchange(
            Exchange.DISCRIMINATOR_STEP, fake=_gradient(fake_tail), real=_gradient(real_tail)
        )
        torch.autograd.backward([fake_head, real_head], [gradients["fake"], gradients["real"]])
        self.optimisers.step(DISC)

        # Generator: through the stepped discriminator, whose parameters get no gradients.
        images_leaf = fake_images.detach().requires_grad_()
        judge_head = _run(self._disc_head, images_leaf, fake_labels)
        judge_tail = exchange(Exchange.JUDGE, fake=judge_head)["fake"].requires_grad_()
        gen_loss = loss_if_real(_run(self._disc_tail, judge_tail))
        (gradient,) = torch.autograd.grad(gen_loss, judge_tail)
        gradient = exchange(Exchange.JUDGE_GRADIENT, fake=gradient)["fake"]
        (gradient,) = torch.autograd.grad(judge_head, images_leaf, gradient)
        fake_images.backward(gradient)
        gradient = exchange(Exchange.GENERATOR_STEP, fake=_gradient(generated))["fake"]
        gen_head.backward(gradient)
        self.optimisers.step(GEN)
        return Losses(gen_loss.item(), disc_loss.item())


def _run(blocks: list[torch.nn.Module], *inputs: Tensor) -> Tensor:
    first, *rest = blocks
    out: Tensor = first(*inputs)
    for block in rest:
        out = block(out)
    return out


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
