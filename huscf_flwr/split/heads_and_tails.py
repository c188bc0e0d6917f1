"""The client's half: heads, tails, losses. Only activations and gradients leave it."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State, run_blocks
from huscf_flwr.nets.losses import GANLoss, Losses
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import Steps
from huscf_flwr.split.cuts import Cut, client_blocks
from huscf_flwr.split.exchanges import exchange_specs
from huscf_flwr.tensors import Tensors


class Ends(NamedTuple):
    """The blocks of an iteration, of one client, or of several that are computed as one.

    Of several, all tensors have one dimension more, clients, which is the first one.
    """

    gen_head: Sequence[nn.Module]
    gen_tail: Sequence[nn.Module]
    disc_head: Sequence[nn.Module]
    disc_tail: Sequence[nn.Module]

    def iteration(
        self,
        batch: Batch,
        step: Callable[[str], None],
        loss: GANLoss,
    ) -> Generator[Tensors, Tensors, tuple[Tensor, Tensor]]:
        """One training iteration, in six exchanges.

        Parameters
        ----------
        batch: where the blocks are.
        step: applies and clears the gradients of a net, by its name.
        loss: of both nets.

        Returns
        -------
        The losses of generator and discriminator, a number for each client.
        """
        gen_head = run_blocks(self.gen_head, batch.latent, batch.fake_labels)
        generated = (yield {"fake": gen_head})["fake"].requires_grad_()
        fake_images = run_blocks(self.gen_tail, generated)

        # Discriminator: fake and real pass it separately, as they do unsplit.
        fake_head = run_blocks(self.disc_head, batch.shown(fake_images.detach()), batch.said)
        real_head = run_blocks(self.disc_head, batch.images, batch.labels)
        segment = yield {"fake": fake_head, "real": real_head}
        fake_tail = segment["fake"].requires_grad_()
        real_tail = segment["real"].requires_grad_()
        disc_loss = loss.if_fake(run_blocks(self.disc_tail, fake_tail)) + loss.if_real(
            run_blocks(self.disc_tail, real_tail)
        )
        disc_loss.backward(torch.ones_like(disc_loss))
        gradients = yield {"fake": _gradient(fake_tail), "real": _gradient(real_tail)}
        torch.autograd.backward([fake_head, real_head], [gradients["fake"], gradients["real"]])
        step(DISC)

        # Generator: through the stepped discriminator, whose parameters get no gradients.
        images_leaf = fake_images.detach().requires_grad_()
        judge_head = run_blocks(self.disc_head, batch.shown(images_leaf), batch.said)
        judge_tail = (yield {"fake": judge_head})["fake"].requires_grad_()
        gen_loss = loss.generator(run_blocks(self.disc_tail, judge_tail))
        (gradient,) = torch.autograd.grad(gen_loss, judge_tail, torch.ones_like(gen_loss))
        gradient = (yield {"fake": gradient})["fake"]
        (gradient,) = torch.autograd.grad(judge_head, images_leaf, gradient)
        fake_images.backward(gradient)
        gradient = (yield {"fake": _gradient(generated)})["fake"]
        gen_head.backward(gradient)
        step(GEN)
        return gen_loss, disc_loss


class HeadsAndTails:
    """One client's heads and tails of both nets, and their optimisers."""

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
        self.spec, self.cut, self.batch_size = spec, cut, batch_size
        own = client_blocks(cut, shapes)
        self.nets = PartialGAN(spec, state, gen=own[GEN], disc=own[DISC], device=device).train()
        gen, disc = cut.gen(shapes), cut.disc(shapes)
        self.gen_head = [self.nets.gen[str(i)] for i in range(gen.head)]
        gen_tail = [self.nets.gen[str(i)] for i in range(gen.tail, gen.length)]
        self.disc_head = [self.nets.disc[str(i)] for i in range(disc.head)]
        disc_tail = [self.nets.disc[str(i)] for i in range(disc.tail, disc.length)]
        self.ends = Ends(self.gen_head, gen_tail, self.disc_head, disc_tail)
        self.optimisers = Optimisers(self.nets, learning_rate)
        self.exchanges = exchange_specs(cut, shapes, batch_size)
        self.device = torch.device(device)
        self.dtype = next(self.nets.parameters()).dtype

    def abandon(self) -> None:
        self.optimisers.zero_grad()

    def iteration(self, batch: Batch) -> Steps:
        """One training iteration, in six exchanges; returns its `Losses`."""
        gen_loss, disc_loss = yield from self.ends.iteration(
            batch.to(self.device, self.dtype), self.optimisers.step, self.spec.gan_loss
        )
        return Losses(gen_loss.item(), disc_loss.item())


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
