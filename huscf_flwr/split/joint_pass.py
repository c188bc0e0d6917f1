"""A forward pass of several clients through the server's blocks of one net, and its backward."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from huscf_flwr.split.cuts import Span

ByClient = dict[int, Tensor]


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
