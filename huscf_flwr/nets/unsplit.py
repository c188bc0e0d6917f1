"""Plain training of a whole conditional GAN in one place: what split training must equal."""

import torch
from torch import Tensor, nn

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State, whole_net
from huscf_flwr.nets.losses import Losses, loss_if_fake, loss_if_real
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
        blocks = whole_net(shapes)
        self.nets = PartialGAN(
            spec, state, gen=blocks[GEN], disc=blocks[DISC], device=device
        ).train()
        self.optimisers = Optimisers(self.nets, learning_rate)
        self._device = torch.device(device)

    def iteration(self, batch: Batch) -> Losses:
        """One step of the discriminator, then one of the generator."""
        images, labels, latent, fake_labels = (tensor.to(self._device) for tensor in batch)
        fake = _run(self.nets.gen, latent, fake_labels)
        disc_loss = loss_if_fake(_run(self.nets.disc, fake.detach(), fake_labels)) + loss_if_real(
            _run(self.nets.disc, images, labels)
        )
        disc_loss.backward()
        self.optimisers.step(DISC)
        gen_loss = loss_if_real(_run(self.nets.disc, fake, fake_labels))
        # The discriminator's own gradients would be computed and thrown away.
        torch.autograd.backward(gen_loss, inputs=list(self.nets.gen.parameters()))
        self.optimisers.step(GEN)
        return Losses(gen_loss.item(), disc_loss.item())


def _run(blocks: nn.ModuleDict, inputs: Tensor, labels: Tensor) -> Tensor:
    first, *rest = blocks.values()
    out: Tensor = first(inputs, labels)
    for block in rest:
        out = block(out)
    return out
