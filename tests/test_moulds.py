"""Blocks from a mould are those that the net's own code builds."""

from dataclasses import replace

import pytest
import torch
from conftest import SPEC
from torch import Tensor, nn

from huscf_flwr.nets import DISC, GEN, Blocks, NetSpec, register_net, unfilled_blocks
from huscf_flwr.nets.moulds import unfilled_block


class Odd(nn.Module):
    """Has whatever modules have that is not in a state once."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.other.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.plain, self.seen = torch.tensor(5.0), list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.other(self.one(inputs)) * self.scale + self.plain
        return out


@register_net("odd")
def odd(spec: NetSpec) -> Blocks:
    nameless = nn.Linear(3, 3)
    nameless.register_forward_hook(lambda module, inputs, out: out + 1)  # pickle cannot have it
    return Blocks([Odd(), nameless], [Odd()], latent_size=3)


ODD = replace(SPEC, net="odd")


def test_all_that_a_state_lacks_is_there() -> None:
    made = unfilled_block(ODD, GEN, 0)
    assert isinstance(made, Odd)
    assert made.other.weight is made.one.weight and isinstance(made.one.weight, nn.Parameter)
    assert [p.requires_grad for p in (made.one.bias, made.other.bias)] == [True, False]
    assert (made.scale.item(), made.plain.item()) == (2, 5)
    assert made.state_dict().keys() == Odd().state_dict().keys()


def test_nothing_is_shared() -> None:
    one, other = (unfilled_block(ODD, DISC, 0) for _ in range(2))
    for first, second in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert first.data_ptr() != second.data_ptr()
    assert isinstance(one, Odd) and isinstance(other, Odd)
    one.seen.append(1)
    one.plain += 1
    assert (other.seen, other.plain.item()) == ([], 5)


def test_what_has_no_mould_is_built() -> None:
    made = unfilled_block(ODD, GEN, 1)
    made.load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)})
    assert made(torch.zeros(1, 3)).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("net", [GEN, DISC])
def test_they_are_as_built(net: str) -> None:
    built = unfilled_blocks(SPEC)
    blocks = built.generator if net == GEN else built.discriminator
    for index, block in enumerate(blocks):
        made = unfilled_block(SPEC, net, index)
        assert str(made) == str(block)
        pairs = zip(made.state_dict().values(), block.state_dict().values(), strict=True)
        for value, due in pairs:
            assert (value.shape, value.stride()) == (due.shape, due.stride())
            assert value.dtype == due.dtype
