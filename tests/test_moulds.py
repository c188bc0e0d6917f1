"""Blocks from a mould are those that the net's own code builds."""

from dataclasses import replace

import pytest
import torch
from conftest import SPEC
from torch import Tensor, nn

from huscf_flwr.nets import (
    DISC,
    GEN,
    Blocks,
    NetSpec,
    PartialGAN,
    initial_state,
    register_net,
    unfilled_blocks,
)
from huscf_flwr.nets.moulds import unfilled_at


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
    first, last = Odd(), Odd()
    last.one = first.one
    return Blocks([first, last], [Odd()], latent_size=3)


@register_net("nameless")
def nameless(spec: NetSpec) -> Blocks:
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda module, inputs, out: out + 1)  # pickle cannot have it
    return Blocks([hooked], [nn.Linear(3, 3)], latent_size=3)


ODD = replace(SPEC, net="odd")


def unfilled_block(spec: NetSpec, net: str, index: int) -> nn.Module:
    (made,) = unfilled_at(spec, [(net, index)]).values()
    return made


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


def test_blocks_share_what_they_share_in_the_net() -> None:
    first, last = unfilled_at(ODD, [(GEN, 0), (GEN, 1)]).values()
    assert isinstance(first, Odd) and isinstance(last, Odd)
    assert last.one.weight is first.one.weight and last.other.bias is not first.other.bias


def test_what_has_no_mould_is_built() -> None:
    made = unfilled_block(replace(SPEC, net="nameless"), GEN, 0)
    made.load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)})
    assert made(torch.zeros(1, 3)).tolist() == [[1, 1, 1]]


def test_they_are_of_what_is_registered_now() -> None:
    """As in a notebook, where a cell that was changed is run again."""
    spec = replace(SPEC, net="changing")
    for slope in (0.2, 0.1):

        def changing(spec: NetSpec, slope: float = slope) -> Blocks:
            return Blocks([nn.LeakyReLU(slope)], [nn.LeakyReLU(slope)], latent_size=3)

        register_net("changing")(changing)
        made = unfilled_block(spec, GEN, 0)
        assert isinstance(made, nn.LeakyReLU) and made.negative_slope == slope


def test_nets_have_the_dtype_of_their_state_whatever_they_were_built_with() -> None:
    @register_net("mixed")
    def mixed(spec: NetSpec) -> Blocks:
        made = Odd()
        made.register_buffer("root", torch.tensor(2, dtype=torch.float64).sqrt())
        return Blocks([made], [nn.Linear(3, 3)], latent_size=3)

    spec = replace(SPEC, net="mixed")
    nets = PartialGAN(spec, initial_state(spec, 0), gen=[0], disc=[0])
    assert {value.dtype for value in nets.state_dict().values()} == {torch.float32}


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
