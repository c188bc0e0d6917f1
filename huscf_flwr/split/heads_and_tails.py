"""The client's half: heads, tails, losses. Only activations and gradients leave it."""

import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State, run_blocks
from huscf_flwr.nets.losses import Losses, loss_if_fake, loss_if_real
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import Steps
from huscf_flwr.split.cuts import Cut, client_blocks
from huscf_flwr.split.exchanges import exchange_specs


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
        own = client_blocks(cut, shapes)
        self.nets = PartialGAN(spec, state, gen=own[GEN], disc=own[DISC], device=device).train()
        gen, disc = cut.gen(shapes), cut.disc(shapes)
        self.gen_head = [self.nets.gen[str(i)] for i in range(gen.head)]
        self._gen_tail = [self.nets.gen[str(i)] for i in range(gen.tail, gen.length)]
        self.disc_head = [self.nets.disc[str(i)] for i in range(disc.head)]
        self._disc_tail = [self.nets.disc[str(i)] for i in range(disc.tail, disc.length)]
        self.optimisers = Optimisers(self.nets, learning_rate)
        self.exchanges = exchange_specs(cut, shapes, batch_size)
        self.device = torch.device(device)
        self.dtype = next(self.nets.parameters()).dtype

    def abandon(self) -> None:
        self.optimisers.zero_grad()

    def iteration(self, batch: Batch) -> Steps:
        """One training iteration, in six exchanges; returns its `Losses`."""
        batch = batch.to(self.device, self.dtype)

        gen_head = run_blocks(self.gen_head, batch.latent, batch.fake_labels)
        generated = (yield {"fake": gen_head})["fake"].requires_grad_()
        fake_images = run_blocks(self._gen_tail, generated)

        # Discriminator: fake and real pass it separately, as they do unsplit.
        fake_head = run_blocks(self.disc_head, batch.shown(fake_images.detach()), batch.said)
        real_head = run_blocks(self.disc_head, batch.images, batch.labels)
        segment = yield {"fake": fake_head, "real": real_head}
        fake_tail = segment["fake"].requires_grad_()
        real_tail = segment["real"].requires_grad_()
        disc_loss = loss_if_fake(run_blocks(self._disc_tail, fake_tail)) + loss_if_real(
            run_blocks(self._disc_tail, real_tail)
        )
        disc_loss.backward()
        gradients = yield {"fake": _gradient(fake_tail), "real": _gradient(real_tail)}
        torch.autograd.backward([fake_head, real_head], [gradients["fake"], gradients["real"]])
        self.optimisers.step(DISC)

        # Generator: through the stepped discriminator, whose parameters get no gradients.
        images_leaf = fake_images.detach().requires_grad_()
        judge_head = run_blocks(self.disc_head, batch.shown(images_leaf), batch.said)
        judge_tail = (yield {"fake": judge_head})["fake"].requires_grad_()
        gen_loss = loss_if_real(run_blocks(self._disc_tail, judge_tail))
        (gradient,) = torch.autograd.grad(gen_loss, judge_tail)
        gradient = (yield {"fake": gradient})["fake"]
        (gradient,) = torch.autograd.grad(judge_head, images_leaf, gradient)
        fake_images.backward(gradient)
        gradient = (yield {"fake": _gradient(generated)})["fake"]
        gen_head.backward(gradient)
        self.optimisers.step(GEN)
        return Losses(gen_loss.item(), disc_loss.item())


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
