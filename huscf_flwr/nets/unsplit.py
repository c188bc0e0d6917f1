"""Plain training of a whole conditional GAN in one place: what split training must equal."""

import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import (
    DISC,
    GEN,
    NetShapes,
    NetSpec,
    PartialGAN,
    State,
    each_output,
    run_blocks,
    whole_net,
)
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.optim import Optimisers


class UnsplitTrainer:
    """Trains all blocks of both nets on one client's batches."""

    def __init__(
        self,
        spec: NetSpec,
        shapes: NetShapes,
        state: State,
        *,
        learning_rate: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.nets = self.build(spec, shapes, state, device).train()
        self.loss = spec.gan_loss
        self.optimisers = Optimisers(self.nets, learning_rate)
        self._device = torch.device(device)
        self._dtype = next(self.nets.parameters()).dtype
        self.activation: Tensor | None = None
        """Mean over the last batch of the discriminator's middle block's output on real data."""

    @staticmethod
    def build(
        spec: NetSpec, shapes: NetShapes, state: State, device: torch.device | str
    ) -> PartialGAN:
        """The nets that are trained."""
        blocks = whole_net(shapes)
        return PartialGAN(spec, state, gen=blocks[GEN], disc=blocks[DISC], device=device)

    def iteration(self, batch: Batch) -> Losses:
        """One step of the discriminator, then one of the generator."""
        batch = batch.to(self._device, self._dtype)
        fake = batch.shown(run_blocks(self.nets.gen.values(), batch.latent, batch.fake_labels))
        judged_fake = run_blocks(self.nets.disc.values(), fake.detach(), batch.said)
        judged_real = each_output(self.nets.disc.values(), batch.images, batch.labels)
        self.activation = judged_real[len(judged_real) // 2].detach().mean(dim=0)
        disc_loss = self.loss.if_fake(judged_fake) + self.loss.if_real(judged_real[-1])
        disc_loss.backward()
        self.optimisers.step(DISC)
        gen_loss = self.loss.generator(run_blocks(self.nets.disc.values(), fake, batch.said))
        # The discriminator's own gradients would be computed and thrown away.
        torch.autograd.backward(gen_loss, inputs=list(self.nets.gen.parameters()))
        self.optimisers.step(GEN)
        return Losses(gen_loss.item(), disc_loss.item())
