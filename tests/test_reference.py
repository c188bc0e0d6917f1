"""What the code of the paper's authors computes, this project computes.

`reference-iterations.npz` holds the results of their training step, clustering and averaging, in
float64 but for the divergences: six clients with the paper's net train three iterations together,
are put into two clusters by the last one's activations, and are averaged. Inputs are drawn here as
they were there. Only `train` knows how clients and server come together.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import plans
from torch import Tensor

from huscf_flwr.clustering.averages import aggregate_shared
from huscf_flwr.clustering.clusters import cluster, grouped
from huscf_flwr.clustering.kld_weights import divergences, weights
from huscf_flwr.data.batches import Batch
from huscf_flwr.defences.guard import Guard
from huscf_flwr.defences.guarded import Guarded, Known
from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.nets import NetSpec, PartialGAN, State, initial_state, net_shapes
from huscf_flwr.nets.losses import Losses
from huscf_flwr.procedure import ClientTraining, ServerHalf
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.split.spot_check import SpotCheck
from huscf_flwr.split.usual import usual_frames

SPEC = NetSpec(image_size=28, channels=1, num_classes=10, width=64)
SHAPES = net_shapes(SPEC)
BATCH, ITERATIONS, RATE = 8, 3, 2e-4
TOLERANCE = 1e-8
KLD_TOLERANCE = 4e-8
"""Absolute: the authors compute divergences, of 0.02 to 0.05, in float32."""

with np.load(Path(__file__).with_name("reference-iterations.npz")) as file:
    REFERENCE: dict[str, np.ndarray] = dict(file)
CUTS = [Cut(*map(int, ends)) for ends in REFERENCE["cuts"]]
CLIENTS = range(len(CUTS))
GROUPS = grouped({k: int(number) for k, number in enumerate(REFERENCE["clusters"])})


class Trained(NamedTuple):
    """What three iterations leave: losses by client and iteration, activations, and states."""

    losses: list[list[Losses]]
    activations: np.ndarray
    clients: dict[int, State]
    server: State


def train(
    halves: Sequence[HeadsAndTails],
    server: Segments,
    batches: Sequence[Sequence[Batch]],
    guard: Guard | None,
) -> Trained:
    """Let all clients train in lockstep, client k on `batches[k]`."""
    runner = InProcessRunner(cohort=None)
    half: ServerHalf = server
    if guard is not None:
        nets = whole_nets(SPEC, first_state())
        frames, fooled = usual_frames(SPEC, nets, CUTS, batch_size=BATCH, seed=0)
        checks = {cut: SpotCheck(SPEC, nets, cut, fooled) for cut in CUTS}
        known = {k: Known(frames[cut], checks[cut], group=0) for k, cut in enumerate(CUTS)}
        half = Guarded(server, guard, known, CLIENTS)
    runner.open_round(1, plans(half, CUTS, ITERATIONS))
    parts = {
        k: ClientTraining(half, batches[k].__getitem__, ITERATIONS)
        for k, half in enumerate(halves)
    }
    with ThreadPoolExecutor(2) as workers:
        assert not runner.train(parts, workers)
    outcomes = runner.close_round()
    assert not any(outcome.failure for outcome in outcomes)
    return Trained(
        [part.results for part in parts.values()],
        np.stack([o.result.numpy() for o in outcomes if o.result is not None]),
        {k: half.nets.state_dict() for k, half in enumerate(halves)},
        server.state(),
    )


def first_state() -> State:
    """The state of the whole net that all clients and the server begin with."""
    state = initial_state(SPEC, 0, torch.float64)
    for i, name in enumerate(sorted(state)):
        drawn = np.random.default_rng((11, i)).normal(size=tuple(state[name].shape))
        if name.endswith((".num_batches_tracked", ".running_mean")):
            state[name].zero_()
        elif name.endswith(".running_var"):
            state[name].fill_(1.0)
        elif name.endswith(".1.weight") and not name.startswith(("gen.4", "disc.4")):
            state[name].copy_(torch.from_numpy(1 + 0.02 * drawn))
        else:
            state[name].copy_(torch.from_numpy(0.05 * drawn))
    return state


def batch(client: int, iteration: int) -> Batch:
    """Images around one of ten prototypes each; clients 0 to 2 and 3 to 5 have other ones."""
    random = np.random.default_rng(0)
    prototypes = [random.normal(size=(10, 1, 28, 28)) for _ in range(2)][client // 3]
    random = np.random.default_rng((client, iteration))
    labels = random.integers(0, 10, BATCH)
    images = np.tanh(prototypes[labels] + 0.3 * random.normal(size=(BATCH, 1, 28, 28)))
    latent = random.normal(size=(BATCH, SHAPES.latent_size))
    drawn = torch.from_numpy(labels)
    return Batch(torch.from_numpy(images), drawn, torch.from_numpy(latent), drawn, drawn)


@pytest.fixture(scope="module", params=["without defences", "with defences"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """These clients are honest, so defences change nothing."""
    state = first_state()
    nets = PartialGAN(SPEC, state, gen=range(1, 4), disc=range(1, 4))
    server = Segments(nets, SHAPES, batch_size=BATCH, learning_rate=RATE)
    halves = [
        HeadsAndTails(SPEC, SHAPES, cut, state, learning_rate=RATE, batch_size=BATCH)
        for cut in CUTS
    ]
    batches = [[batch(k, t) for t in range(ITERATIONS)] for k in CLIENTS]
    guard = Guard() if request.param == "with defences" else None
    trained = train(halves, server, batches, guard)
    assert guard is None or not guard.clipped
    return trained


def summary(value: Tensor) -> np.ndarray:
    """Sum, norm, and 24 of the entries: what the file holds of a tensor."""
    flat = value.numpy().ravel()
    chosen = flat[np.random.default_rng(5).integers(0, flat.size, 24)]
    return np.array([flat.sum(), np.linalg.norm(flat), *chosen])


def check_state(owner: str, state: State) -> None:
    """Every tensor's sum, norm and entries, each with a relative error of at most TOLERANCE."""
    due = {name: v for name, v in REFERENCE.items() if name.startswith(f"{owner}/")}
    ours = {f"{owner}/{n}": v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    assert ours.keys() == due.keys()
    for name, value in ours.items():
        found, (total, norm, *entries) = summary(value), due[name]
        # A sum may be near zero, where its error is not.
        units = {"sum": max(abs(total), norm), "norm": norm, "entries": np.linalg.norm(entries)}
        parts = np.split(found - due[name], [1, 2])
        for (what, unit), part in zip(units.items(), parts, strict=True):
            error = np.linalg.norm(part) / unit
            assert error <= TOLERANCE, f"{name}: relative error of {what} {error:.2g}"


@pytest.mark.parametrize("net", ["discriminator", "generator"])
def test_losses(trained: Trained, net: str) -> None:
    """Means over the clients, in each iteration."""
    found = np.mean([[getattr(loss, net) for loss in losses] for losses in trained.losses], axis=0)
    assert found == pytest.approx(REFERENCE[f"losses/{net}"], rel=TOLERANCE)


@pytest.mark.parametrize("client", CLIENTS)
def test_trained_client(trained: Trained, client: int) -> None:
    check_state(f"trained/client-{client}", trained.clients[client])


def test_trained_server(trained: Trained) -> None:
    check_state("trained/server", trained.server)


def test_clusters(trained: Trained) -> None:
    """The same clients are together; clusters may be numbered otherwise."""
    found = grouped(dict(enumerate(cluster(trained.activations, 2, seed=0))))
    assert sorted(found.values()) == sorted(GROUPS.values())


def test_divergences(trained: Trained) -> None:
    assert divergences(trained.activations) == pytest.approx(
        REFERENCE["kld/global"], rel=0, abs=KLD_TOLERANCE
    )
    for members in GROUPS.values():
        assert divergences(trained.activations[members]) == pytest.approx(
            REFERENCE["kld/in-cluster"][members], rel=0, abs=KLD_TOLERANCE
        )


def test_averages(trained: Trained) -> None:
    """Weights follow from the file's divergences, which have fewer digits than ours."""
    everyone = list(CLIENTS)
    by_cluster: dict[int, float] = {}
    for members in GROUPS.values():
        by_cluster |= shares(members, "kld/in-cluster")
    server, models = aggregate_shared(
        trained.server, trained.clients, GROUPS, by_cluster, shares(everyone, "kld/global")
    )
    check_state("averaged/server", server)
    for number, members in GROUPS.items():
        for k in members:
            own = {name: models[number][name] for name in trained.clients[k]}
            check_state(f"averaged/client-{k}", own)


def shares(members: list[int], klds: str) -> dict[int, float]:
    """Weights of these clients among themselves."""
    found = weights(REFERENCE["sizes"][members], REFERENCE[klds][members], beta=1.0)
    return dict(zip(members, map(float, found), strict=True))
