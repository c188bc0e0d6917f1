"""Nets, cuts, and the blocks that each side builds."""

import pytest
import torch
from conftest import CUTS, SHAPES, SPEC
from torch import nn

from huscf_flwr.cuts import Cut, end_limits, read_cuts
from huscf_flwr.errors import UserError
from huscf_flwr.generator import Generator
from huscf_flwr.nets import (
    DISC,
    GEN,
    Blocks,
    NetSpec,
    PartialGAN,
    build_blocks,
    initial_state,
    net_shapes,
    register_net,
)


def test_cgan_is_the_papers_net() -> None:
    spec = NetSpec(image_size=28, channels=1, num_classes=10, width=64)
    shapes = net_shapes(spec)
    assert [tuple(s) for s in shapes.gen] == [
        (256, 7, 7),
        (128, 14, 14),
        (128, 14, 14),
        (64, 28, 28),
        (1, 28, 28),
    ]
    assert [tuple(s) for s in shapes.disc] == [
        (64, 14, 14),
        (128, 7, 7),
        (128, 7, 7),
        (256, 3, 3),
        (1,),
    ]
    first = build_blocks(spec).generator[0].layers[0]
    assert (first.in_features, first.out_features) == (110, 12544)


@pytest.mark.parametrize(("size", "channels", "classes"), [(16, 1, 2), (20, 3, 7), (64, 3, 10)])
def test_cgan_fits_any_format(size: int, channels: int, classes: int) -> None:
    spec = NetSpec(image_size=size, channels=channels, num_classes=classes, width=2)
    generator = Generator(spec, initial_state(spec, 0))
    made, labels = generator.sample(classes + 1, seed=1)
    assert made.shape == (classes + 1, channels, size, size)
    assert made.abs().max() <= 1
    assert labels.tolist() == [*range(classes), 0]


@pytest.mark.parametrize("size", [12, 18])
def test_cgan_refuses_other_sizes(size: int) -> None:
    with pytest.raises(UserError, match=rf"image-size={size}.*multiple of 4, at least 16"):
        build_blocks(NetSpec(image_size=size, channels=1, num_classes=2, width=2))


def test_parts_join_to_the_whole() -> None:
    """Blocks built apart, run one after the other, give what the whole generator gives."""
    state = initial_state(SPEC, 3)
    whole = Generator(SPEC, state)
    latent, labels = torch.randn(5, whole.latent_size), torch.arange(5) % 3
    for cut in CUTS:
        span = cut.gen(SHAPES)
        client = PartialGAN(SPEC, state, gen=span.client, disc=()).eval()
        server = PartialGAN(SPEC, state, gen=span.server, disc=()).eval()
        assert client.gen.keys() | server.gen.keys() == {"0", "1", "2", "3", "4"}
        parts = {**client.gen, **server.gen}
        out = parts["0"](latent, labels)
        for index in ("1", "2", "3", "4"):
            out = parts[index](out)
        assert torch.equal(out, whole(latent, labels))


def test_a_side_builds_its_own_blocks_only() -> None:
    nets = PartialGAN(SPEC, initial_state(SPEC, 0), gen=(1, 2), disc=(2,))
    held = {tuple(name.split(".")[:2]) for name in nets.state_dict()}
    assert held == {("gen", "1"), ("gen", "2"), ("disc", "2")}


def test_a_list_of_cuts_is_read_in_its_order() -> None:
    assert read_cuts("1-2-1-2, 2-1-1-1", SHAPES) == [Cut(1, 2, 1, 2), Cut(2, 1, 1, 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3-1-1-1", "gen_head=3 takes the middle block.*generator of 5 blocks allows.* 1 to 2"),
        ("1-1-1-3", "disc_tail=3 takes the middle block.*discriminator of 5 blocks"),
        ("0-1-1-1", "gen_head=0 is empty"),
        ("1-1-1", "four numbers"),
        ("1-a-1-1", "four numbers"),
        ("", "four numbers"),
    ],
)
def test_impossible_cuts_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_cuts(text, SHAPES)


def test_own_nets_of_any_length_can_be_cut() -> None:
    class Join(nn.Module):
        def __init__(self, inputs: int, classes: int, outputs: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(classes, 2)
            self.layer = nn.Linear(inputs + 2, outputs)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([x.flatten(1), self.embedding(labels)], 1)).relu()

    @register_net("dense")
    def dense(spec: NetSpec) -> Blocks:
        pixels = spec.channels * spec.image_size**2
        image = (spec.channels, spec.image_size, spec.image_size)
        middle = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(5)]
        return Blocks(
            [
                Join(4, spec.num_classes, 8),
                middle[0],
                nn.Sequential(nn.Linear(8, pixels), nn.Tanh(), nn.Unflatten(1, image)),
            ],
            [Join(pixels, spec.num_classes, 8), *middle[1:], nn.Linear(8, 1)],
            latent_size=4,
        )

    shapes = net_shapes(NetSpec(net="dense", image_size=9, channels=3, num_classes=2, width=1))
    assert (len(shapes.gen), len(shapes.disc), shapes.latent_size) == (3, 6, 4)
    assert end_limits(shapes) == (1, 1, 3, 2)
    assert Cut(1, 1, 1, 1).disc(shapes).server == range(1, 5)


def test_unknown_net_is_named() -> None:
    with pytest.raises(UserError, match='net="nope" is not registered: known are cgan'):
        build_blocks(NetSpec(net="nope", image_size=16, channels=1, num_classes=2, width=2))
    with pytest.raises(UserError, match="cannot import no_such_module"):
        build_blocks(
            NetSpec(net="no_such_module:x", image_size=16, channels=1, num_classes=2, width=2)
        )


def test_state_names_say_where_a_block_is() -> None:
    state = initial_state(SPEC, 0)
    assert {name.split(".")[0] for name in state} == {GEN, DISC}
    assert {name.split(".")[1] for name in state if name.startswith(GEN)} == set("01234")
