"""The client's half: a discriminator, its real images, and what it makes of generated ones."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch
from huscf_flwr.feedback.exchanges import JUDGED, LABELS, TRAINED, exchange_specs
from huscf_flwr.nets import DISC, NetShapes, NetSpec, PartialGAN, State, run_blocks, whole_net
from huscf_flwr.nets.losses import Losses
from huscf_flwr.nets.optim import Optimisers
from huscf_flwr.procedure import Steps
from huscf_flwr.tensors import Tensors


class DiscriminatorHalf(ABC):
    """One client's discriminator and its optimiser. Of the batch it needs real images only."""

    apart: bool
    """Whether the images it is trained with are others than those that it judges."""

    def __init__(
        self,
        spec: NetSpec,
        shapes: NetShapes,
        state: State,
        *,
        learning_rate: float,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build all blocks of the discriminator from `state`."""
        blocks = whole_net(shapes)[DISC]
        self.nets = PartialGAN(spec, state, gen=(), disc=blocks, device=device).train()
        self.optimisers = Optimisers(self.nets, learning_rate)
        self.exchanges = exchange_specs(shapes, batch_size, apart=self.apart)
        self.device = torch.device(device)
        self.dtype = next(self.nets.parameters()).dtype
        self._loss = spec.gan_loss

    def abandon(self) -> None:
        self.optimisers.zero_grad()

    def iteration(self, batch: Batch) -> Steps:
        """One training iteration, in two exchanges; returns its `Losses`."""
        given = yield {}
        images = batch.images.to(self.device, self.dtype)
        feedback, losses = self.learn(images, batch.labels.to(self.device), given)
        yield {JUDGED: feedback}
        return losses

    @abstractmethod
    def learn(self, images: Tensor, labels: Tensor, given: Tensors) -> tuple[Tensor, Losses]:
        """Step the discriminator on real and on generated images, and judge the latter.

        Parameters
        ----------
        images, labels: real ones, (B, C, H, W) and int64 (B,).
        given: what GENERATE brought.

        Returns
        -------
        The gradient of the generator's loss at the images that are judged, and both losses.
        """

    def _judged(self, logits: Tensor, images: Tensor, *, keep: bool) -> tuple[Tensor, float]:
        """The feedback, and the generator's loss; `keep` the graph for another pass."""
        loss = self._loss.generator(logits)
        (gradient,) = torch.autograd.grad(loss, images, retain_graph=keep)
        return gradient, loss.item()

    def _disc(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, 1)."""
        return run_blocks(self.nets.disc.values(), images, labels.long())


class StepsThenJudges(DiscriminatorHalf):
    """MD-GAN's worker: the discriminator steps, then judges another batch."""

    apart = True

    def learn(self, images: Tensor, labels: Tensor, given: Tensors) -> tuple[Tensor, Losses]:
        fake = self._disc(given[TRAINED], given[TRAINED + LABELS])
        disc_loss = self._loss.if_fake(fake) + self._loss.if_real(self._disc(images, labels))
        disc_loss.backward()
        self.optimisers.step(DISC)
        judged = given[JUDGED].requires_grad_()
        logits = self._disc(judged, given[JUDGED + LABELS])
        feedback, gen_loss = self._judged(logits, judged, keep=False)
        return feedback, Losses(gen_loss, disc_loss.item())


class JudgesThenSteps(DiscriminatorHalf):
    """A client of Federated Split GANs: one pass over generated images, for both losses."""

    apart = False

    def learn(self, images: Tensor, labels: Tensor, given: Tensors) -> tuple[Tensor, Losses]:
        judged = given[JUDGED].requires_grad_()
        logits = self._disc(judged, given[JUDGED + LABELS])
        disc_loss = self._loss.if_fake(logits) + self._loss.if_real(self._disc(images, labels))
        feedback, gen_loss = self._judged(logits, judged, keep=True)
        torch.autograd.backward(disc_loss, inputs=list(self.nets.parameters()))
        self.optimisers.step(DISC)
        return feedback, Losses(gen_loss, disc_loss.item())
