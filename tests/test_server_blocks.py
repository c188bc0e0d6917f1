"""The server's blocks of each cluster: what clusters share, and what becomes of them."""

from pathlib import Path

import pytest
import torch
from conftest import CUT, bytes_of, segments, tiny

from huscf_flwr.errors import UserError
from huscf_flwr.nets import State
from simulations.engine import Engine
from strategies.server_blocks import ServerBlocks


def _moment(blocks: ServerBlocks, key: int) -> torch.Tensor:
    """One of an optimiser's moments."""
    state = blocks.checkpoint()[key]
    return next(value for name, value in sorted(state.items()) if name.endswith("/exp_avg"))


def _trained(blocks: ServerBlocks, cluster: int, seed: int) -> State:
    """Step a cluster's blocks on random gradients; their new parameters."""
    half = blocks.of(cluster)
    random = torch.Generator().manual_seed(seed)
    for parameter in half.nets.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)
    for net in ("gen", "disc"):
        half.optimisers.step(net)
    return half.state()


def test_a_cluster_begins_with_what_its_clients_trained_with() -> None:
    blocks = ServerBlocks(segments, shared=False)
    state = _trained(blocks, 0, seed=1)
    before = _moment(blocks, 0)
    blocks.update({0: state, 1: state}, {0: {0: 1.0}, 1: {0: 1.0}})
    assert torch.equal(_moment(blocks, 1), before)
    _trained(blocks, 1, seed=2)  # from now on, they are two
    assert torch.equal(_moment(blocks, 0), before)
    assert bytes_of(blocks.of(0).state()) == bytes_of(state)
    assert bytes_of(blocks.of(1).state()) != bytes_of(state)


def test_merged_clusters_have_the_mean_of_their_moments() -> None:
    blocks = ServerBlocks(segments, shared=False)
    states = [_trained(blocks, cluster, seed=cluster) for cluster in (0, 1)]
    one, other = _moment(blocks, 0), _moment(blocks, 1)
    blocks.update({0: states[1]}, {0: {0: 0.25, 1: 0.75}})
    blocks.keep([0])
    assert len(blocks) == 1
    torch.testing.assert_close(_moment(blocks, 0), 0.25 * one + 0.75 * other)
    assert bytes_of(blocks.of(0).state()) == bytes_of(states[1])


def test_a_cluster_that_comes_back_has_its_blocks() -> None:
    blocks = ServerBlocks(segments, shared=False)
    kept = _trained(blocks, 1, seed=1)
    blocks.update({0: _trained(blocks, 0, seed=0)}, {0: {0: 1.0}})
    blocks.keep([0, 1])
    assert bytes_of(blocks.of(1).state()) == bytes_of(kept)


def test_shared_blocks_are_one() -> None:
    blocks = ServerBlocks(segments, shared=True)
    assert blocks.of(0) is blocks.of(5) and len(blocks) == 1


@pytest.mark.usefixtures("few_steps")
def test_clusters_do_not_touch_each_other(folder: Path) -> None:
    """A client's cluster ends in the same bytes whether or not there is another cluster."""
    common = {"clusters": "domains", "cuts": str(CUT), "cohort": "all", "num_server_rounds": 2}
    both = Engine(tiny(num_clients=2, output_dir="both", **common), str(folder)).run()
    alone = tiny(domains="one.npz", num_clients=1, output_dir="alone", **common)
    Engine(alone, str(folder)).run()
    shared = {**common, "server_blocks": "shared"}
    Engine(tiny(num_clients=2, output_dir="shared", **shared), str(folder)).run()
    name = "generator-cluster-0.safetensors"
    assert (both / name).read_bytes() == (folder / "alone" / name).read_bytes()
    assert (both / name).read_bytes() != (folder / "shared" / name).read_bytes()
    assert (both / "generator-cluster-1.safetensors").exists()


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("now", ["shared", "cluster"])
def test_a_run_goes_on_with_the_other_kind_of_blocks(now: str, folder: Path) -> None:
    before = "cluster" if now == "shared" else "shared"
    first = Engine(
        tiny(server_blocks=before, num_server_rounds=2, output_dir="first"), str(folder)
    )
    first.run()
    saved = first.strategy.checkpoint(2).servers
    second = Engine(tiny(server_blocks=now, resume="first", output_dir="more"), str(folder))
    taken = second.strategy.checkpoint(2).servers
    assert len(saved) == (2 if before == "cluster" else 1) and len(taken) == 1
    if before == "cluster":  # of two clients, and of one
        sizes = [[*first.strategy.assignment.values()].count(cluster) for cluster in saved]
        name = next(name for name in saved[0] if name.endswith("weight"))
        mean = sum(size * saved[c][name] for size, c in zip(sizes, saved, strict=True)) / 3
        torch.testing.assert_close(taken[0][name], mean)
    second.run()


@pytest.mark.usefixtures("few_steps")
def test_every_client_on_its_own(folder: Path) -> None:
    made = Engine(tiny(clusters="clients", num_server_rounds=2), str(folder)).run()
    assert len(list(made.glob("generator-cluster-*.safetensors"))) == 3


def test_true_domains_are_known_in_simulation_only(folder: Path) -> None:
    engine = Engine(tiny(clusters="domains"), str(folder))
    for client in engine._clients:
        client._context.node_config["data"] = str(folder / "one.npz")
    with pytest.raises(UserError, match='clusters="domains": client 0 has data of its own'):
        engine.run()


@pytest.mark.usefixtures("few_steps")
def test_fedgan_in_clusters_is_fedgan_in_each(folder: Path) -> None:
    common = {"strategy": "clustered-fedgan", "clusters": "domains", "num_server_rounds": 2}
    both = Engine(tiny(num_clients=2, output_dir="both", **common), str(folder)).run()
    alone = tiny(domains="one.npz", num_clients=1, strategy="fedgan", num_server_rounds=2)
    name = "generator-cluster-0.safetensors"
    assert (both / name).read_bytes() == (Engine(alone, str(folder)).run() / name).read_bytes()
