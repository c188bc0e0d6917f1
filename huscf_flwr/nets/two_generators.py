"""A discriminator with two generators, and their plain training in one place."""

import torch

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, PartialGAN, State, run_blocks, whole_net
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.unsplit import UnsplitTrainer

CENTRAL = "central"
"""The second generator, in names of parameters."""


class TwoGenerators(PartialGAN):
    """Whole nets, and another generator beside the one that they have."""

    def __init__(
        self, spec: NetSpec, shapes: NetShapes, state: State, device: torch.device | str = "cpu"
    ) -> None:
        """Build them from `state`, which has `central` beside `gen` and `disc`."""
        blocks = whole_net(shapes)
        super().__init__(spec, state, gen=blocks[GEN], disc=blocks[DISC], device=device)
        second = renamed(state, CENTRAL, GEN)
        self.central = PartialGAN(spec, second, gen=blocks[GEN], disc=(), device=device).gen


def renamed(state: State, old: str, new: str) -> State:
    """The part of a state that belongs to one net, as that of another."""
    return {
        new + name.removeprefix(old): value
        for name, value in state.items()
        if name.startswith(f"{old}.")
    }


class TwoGeneratorsTrainer(UnsplitTrainer):
    """Trains them on one client's batches; both generators get the same latent vectors."""

    nets: TwoGenerators

    @staticmethod
    def build(
        spec: NetSpec, shapes: NetShapes, state: State, device: torch.device | str
    ) -> TwoGenerators:
        return TwoGenerators(spec, shapes, state, device)

    def iteration(self, batch: Batch) -> Losses:
        """One step of the discriminator, by the mean of what it loses on both, then one of each
        generator; the loss of generators is their mean."""
        batch = batch.to(self._device, self._dtype)
        disc = self.nets.disc.values()
        generators = {GEN: self.nets.gen, CENTRAL: self.nets.central}
        fakes = {
            name: batch.shown(run_blocks(blocks.values(), batch.latent, batch.fake_labels))
            for name, blocks in generators.items()
        }
        on_fakes = [
            self.loss.if_fake(run_blocks(disc, fake.detach(), batch.said))
            for fake in fakes.values()
        ]
        on_real = self.loss.if_real(run_blocks(disc, batch.images, batch.labels))
        disc_loss = torch.stack(on_fakes).mean() + on_real
        disc_loss.backward()
        self.optimisers.step(DISC)
        losses = []
        for name, blocks in generators.items():
            loss = self.loss.generator(run_blocks(disc, fakes[name], batch.said))
            torch.autograd.backward(loss, inputs=list(blocks.parameters()))
            self.optimisers.step(name)
            losses.append(loss.item())
        return Losses(sum(losses) / len(losses), disc_loss.item())
