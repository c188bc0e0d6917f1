"""Nets, cuts, the blocks that each side builds, and generators in files."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import CUTS, SHAPES, SPEC
from torch import nn

from huscf_flwr.errors import UserError
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
from huscf_flwr.nets.generator import Generator, load_generator
from huscf_flwr.split.cuts import Cut, end_limits, read_cuts


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


def test_resize_halves_down_to_the_smallest_feature_map() -> None:
    shapes = net_shapes(NetSpec(net="resize", image_size=32, channels=3, num_classes=10, width=16))
    assert [tuple(s) for s in shapes.gen] == [
        (96, 4, 4),
        (72, 8, 8),
        (48, 16, 16),
        (24, 32, 32),
        (3, 32, 32),
    ]
    assert [tuple(s) for s in shapes.disc] == [(32, 16, 16), (64, 8, 8), (96, 4, 4), (1,)]


@pytest.mark.parametrize(
    ("net", "size", "channels", "classes"),
    [
        ("cgan", 16, 1, 2),
        ("cgan", 20, 3, 7),
        ("cgan", 64, 3, 10),
        ("resize", 16, 1, 2),
        ("resize", 28, 1, 10),
        ("resize", 80, 3, 7),
        ("resize", 128, 3, 10),
    ],
)
def test_nets_fit_any_format(net: str, size: int, channels: int, classes: int) -> None:
    spec = NetSpec(net=net, image_size=size, channels=channels, num_classes=classes, width=2)
    generator = Generator(spec, initial_state(spec, 0))
    made, labels = generator.sample(classes + 1, seed=1)
    assert made.shape == (classes + 1, channels, size, size)
    assert made.abs().max() <= 1
    assert labels.tolist() == [*range(classes), 0]


@pytest.mark.parametrize(
    ("net", "size", "due"),
    [
        ("cgan", 12, "a multiple of 4, at least 16"),
        ("cgan", 18, "a multiple of 4, at least 16"),
        ("resize", 12, "4, 5, 6 or 7 times a power of 2, at least 16"),
        ("resize", 36, "4, 5, 6 or 7 times a power of 2, at least 16"),
    ],
)
def test_nets_refuse_other_sizes(net: str, size: int, due: str) -> None:
    with pytest.raises(UserError, match=rf"image-size={size}.* the net {net} needs {due}"):
        build_blocks(NetSpec(net=net, image_size=size, channels=1, num_classes=2, width=2))


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


# Files of generators


def write_generator(path: Path, **changes: Any) -> Path:
    """A sound generator, but for what its header says."""
    state = initial_state(SPEC, 0)
    header = {"huscf-generator-1": json.dumps({**asdict(SPEC), **changes})}
    safetensors.torch.save_file(state, path, metadata=header)
    return path


@pytest.mark.parametrize("net", ["evil:x", "evil:cgan"])
def test_a_file_imports_nothing(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = write_generator(tmp_path / "g.safetensors", net=net)
    if net == "evil:cgan":  # its name alone counts, and is known
        assert load_generator(file).spec == SPEC
    else:
        with pytest.raises(UserError, match=r"needs the net 'evil:x': .* --net 'evil:x'"):
            load_generator(file)
    with pytest.raises(SystemExit, match="imported"):
        load_generator(file, net="evil:x")


def test_a_file_of_ones_own_net_loads_with_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from huscf_flwr.nets import cgan, register_net\nregister_net('own')(cgan)\n"
    (tmp_path / "own_net.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    file = write_generator(tmp_path / "g.safetensors", net="own")
    with pytest.raises(UserError, match=r"needs the net 'own': .* --net 'module:own'"):
        load_generator(file)
    assert load_generator(file, net="own_net:own").sample(3)[0].shape == (3, 1, 16, 16)
    assert "own_net" in sys.modules
    load_generator(file)  # registered now


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "its header describes no generator: .*'depth'"),
        ({"width": "2"}, "its header describes no generator: width='2': must be a whole number"),
        ({"channels": 0}, "channels=0: must be a whole number, at least 1"),
        ({"net": 3}, "net=3: must be text"),
        ({"width": 3}, r"holds no generator of NetSpec\(net='cgan'.*width=3.*\): .*size mismatch"),
        ({"num_classes": 2**80}, "holds no generator of "),
    ],
)
def test_a_generator_that_is_none_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_generator(tmp_path / "g.safetensors", **changes)
    with pytest.raises(UserError, match=f"g.safetensors: .*{message}") as caught:
        load_generator(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["{", "[1]", "{}"])
def test_a_broken_header_is_named(header: str, tmp_path: Path) -> None:
    file = tmp_path / "g.safetensors"
    safetensors.torch.save_file(
        initial_state(SPEC, 0), file, metadata={"huscf-generator-1": header}
    )
    with pytest.raises(UserError, match=r"g\.safetensors: its header describes no generator"):
        load_generator(file)


def test_a_missing_parameter_is_named(tmp_path: Path) -> None:
    file = write_generator(tmp_path / "g.safetensors")
    state = safetensors.torch.load_file(file)
    del state["gen.0.embedding.weight"]
    header = {"huscf-generator-1": json.dumps(asdict(SPEC))}
    safetensors.torch.save_file(state, file, metadata=header)
    with pytest.raises(UserError, match=r"Missing key.* .gen.0.embedding.weight"):
        load_generator(file)
