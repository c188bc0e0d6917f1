"""What a client's gradients should be, as far as the server can tell.

The server hands out heads and tails, and what it sends to a client goes through them: so it can
compute the gradients that come back. It has the client's blocks of the beginning of the round, and
not the labels, so it does not get the same ones; but they point the same way.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from huscf_flwr.defences.guarded import Seen
from huscf_flwr.nets import NetSpec, PartialGAN, net_shapes, run_blocks
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.tensors import Tensors


class SpotCheck:
    """The heads and tails that clients with one cut begin a round with."""

    def __init__(self, spec: NetSpec, nets: PartialGAN, cut: Cut, fooled: float) -> None:
        """`nets` are the whole ones, in training mode, which find generated images probably real
        by `fooled`, on average."""
        self.nets, self.cut, self.fooled = nets, cut, fooled
        shapes = net_shapes(spec)
        gen, disc = cut.gen(shapes), cut.disc(shapes)
        self._gen_tail = [nets.gen[str(i)] for i in range(gen.tail, gen.length)]
        self._disc_head = [nets.disc[str(i)] for i in range(disc.head)]
        self._disc_middle = [nets.disc[str(i)] for i in range(disc.head, disc.tail)]
        self._disc_tail = [nets.disc[str(i)] for i in range(disc.tail, disc.length)]
        self._classes = spec.num_classes
        self._loss = spec.gan_loss

    def expected(self, exchange: int, seen: Seen, rows: Tensor) -> dict[str, Tensor]:
        """See `SpotChecker`."""
        match Exchange(exchange):
            case Exchange.DISCRIMINATOR_STEP:
                told = seen[Exchange.DISCRIMINATE][1]
                losses = {"fake": self._loss.if_fake, "real": self._loss.if_real}
                return {
                    name: self._of_tail(loss, told[name])[rows] for name, loss in losses.items()
                }
            case Exchange.JUDGE_GRADIENT:
                judged = seen[Exchange.JUDGE][1]["fake"]
                return {"fake": self._of_tail(self._loss.generator, judged)[rows]}
            case Exchange.GENERATOR_STEP:
                generated = seen[Exchange.GENERATE][1]["fake"]
                wanted = seen[Exchange.JUDGE_GRADIENT][1]["fake"]
                return {"fake": self._of_images(generated[rows], wanted[rows])}
            case _:
                return {}

    def belief(self, exchange: int, sent: Tensors) -> float | None:
        """See `SpotChecker`."""
        if exchange != Exchange.DISCRIMINATE:
            return None
        with torch.no_grad():
            logits = run_blocks([*self._disc_middle, *self._disc_tail], sent["real"].cpu())
        return float(logits.sigmoid().mean()) - self.fooled

    def _of_tail(self, loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
        """Gradient of a loss of the discriminator at its segment's outputs."""
        at = outputs.detach().cpu().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(run_blocks(self._disc_tail, at)), at)
        return gradient

    def _of_images(self, generated: Tensor, wanted: Tensor) -> Tensor:
        """Gradient at the generator's segment's outputs, of that at the discriminator head's."""
        at = generated.detach().cpu().requires_grad_()
        labels = torch.arange(len(at)) % self._classes
        head = run_blocks(self._disc_head, run_blocks(self._gen_tail, at), labels)
        (gradient,) = torch.autograd.grad(head, at, wanted.cpu())
        return gradient
