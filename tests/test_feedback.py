"""Methods with the generator on the server: their steps are backpropagation through both nets."""

import copy
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BATCH, RATE, SHAPES, SPEC, bytes_of, stream, tiny
from torch import Tensor, nn

from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.feedback.discriminators import (
    DiscriminatorHalf,
    JudgesThenSteps,
    StepsThenJudges,
)
from huscf_flwr.feedback.exchanges import JUDGED, Exchange
from huscf_flwr.feedback.generator import GeneratorHalf
from huscf_flwr.feedback.usual import usual_feedback
from huscf_flwr.nets import State, initial_state, run_blocks
from huscf_flwr.nets.losses import BCE, LOSSES
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.session import SessionPlan
from simulations.engine import Engine
from strategies.central_generator import CentralGenerator
from strategies.fedsplitgan import FedSplitGAN
from strategies.mdgan import MDGAN, deranged
from strategies.updates import Update

pytestmark = pytest.mark.usefixtures("few_steps")

CLIENTS = range(3)


def adam(module: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), RATE, (0.5, 0.999))


def halves(
    kind: type[DiscriminatorHalf], batches: int, *, loss: str = BCE
) -> tuple[GeneratorHalf, list[DiscriminatorHalf]]:
    spec = replace(SPEC, loss=loss)
    state = initial_state(spec, 0, torch.float64)
    server = GeneratorHalf(
        spec, SHAPES, state, batch_size=BATCH, learning_rate=RATE, seed=0,
        batches=lambda clients: batches, apart=kind.apart, mean=kind.apart,
    )  # fmt: skip
    clients = [
        kind(
            spec, SHAPES, initial_state(spec, k, torch.float64),
            learning_rate=RATE, batch_size=BATCH,
        )
        for k in CLIENTS
    ]  # fmt: skip
    return server, clients


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batches", [1, 2, 3])
def test_mdgans_step_is_that_of_one_graph(batches: int, loss: str) -> None:
    """Through the generator and all discriminators, which have stepped before."""
    server, clients = halves(StepsThenJudges, batches, loss=loss)
    gen, discs, made = plain(server, clients, batches)
    losses = []
    for k, disc in enumerate(discs):
        optimiser = adam(disc)
        disc_loss = disc_loss_on(*made[(k + 1) % batches], disc, k, loss)
        disc_loss.backward()
        optimiser.step()
        losses.append(disc_loss)
    gen_losses = []
    for k, disc in enumerate(discs):
        images, labels = made[k % batches]
        logits = run_blocks(disc.values(), images, labels)
        gen_losses.append(LOSSES[loss].generator(logits))
    gen.zero_grad()
    torch.stack(gen_losses).mean().backward()
    adam(gen).step()
    check(server, clients, gen, discs, list(zip(gen_losses, losses, strict=True)))


@pytest.mark.parametrize("loss", LOSSES)
def test_federated_split_gans_step_is_that_of_one_graph(loss: str) -> None:
    """Through the generator and all discriminators, which have not stepped yet."""
    server, clients = halves(JudgesThenSteps, 1, loss=loss)
    gen, discs, ((images, labels),) = plain(server, clients, 1)
    logits = [run_blocks(disc.values(), images, labels) for disc in discs]
    gen_losses = [LOSSES[loss].generator(of_client) for of_client in logits]
    reals = [real_loss(disc, k, loss) for k, disc in enumerate(discs)]
    disc_losses = [LOSSES[loss].if_fake(f) + r for f, r in zip(logits, reals, strict=True)]
    own = list(gen.parameters())
    gradients = torch.autograd.grad(torch.stack(gen_losses).sum(), own, retain_graph=True)
    for disc, disc_loss in zip(discs, disc_losses, strict=True):
        optimiser = adam(disc)
        disc_loss.backward(inputs=list(disc.parameters()), retain_graph=True)
        optimiser.step()
    for parameter, gradient in zip(own, gradients, strict=True):
        parameter.grad = gradient
    adam(gen).step()
    check(server, clients, gen, discs, list(zip(gen_losses, disc_losses, strict=True)))


def plain(
    server: GeneratorHalf, clients: list[DiscriminatorHalf], batches: int
) -> tuple[nn.ModuleDict, list[nn.ModuleDict], list[tuple[Tensor, Tensor]]]:
    """Copies of all nets, and the first batches that the generator makes, with their graph."""
    twin = copy.copy(server)
    twin.nets = copy.deepcopy(server.nets)
    made = [twin.generate() for _ in range(batches)]
    return twin.nets.gen, [copy.deepcopy(client.nets.disc) for client in clients], made


def real_loss(disc: nn.ModuleDict, client: int, loss: str) -> Tensor:
    batch = stream(client)[0]
    return LOSSES[loss].if_real(run_blocks(disc.values(), batch.images.double(), batch.labels))


def disc_loss_on(
    images: Tensor, labels: Tensor, disc: nn.ModuleDict, client: int, loss: str
) -> Tensor:
    fake = run_blocks(disc.values(), images.detach(), labels)
    return LOSSES[loss].if_fake(fake) + real_loss(disc, client, loss)


def check(
    server: GeneratorHalf,
    clients: list[DiscriminatorHalf],
    gen: nn.ModuleDict,
    discs: list[nn.ModuleDict],
    losses: list[tuple[Tensor, ...]],
) -> None:
    """Train an iteration, and compare with what it has to give."""
    runner = InProcessRunner(cohort=None)
    runner.open_round(1, [SessionPlan("", k, server, None, 1) for k in CLIENTS])
    parts = {k: ClientTraining(c, stream(k).__getitem__, 1) for k, c in enumerate(clients)}
    with ThreadPoolExecutor(2) as workers:
        assert not runner.train(parts, workers)
    for part, due in zip(parts.values(), losses, strict=True):
        assert astuple(part.results[0]) == pytest.approx([x.item() for x in due], rel=1e-10)
    near(server.nets.gen.state_dict(), gen.state_dict())
    for client, disc in zip(clients, discs, strict=True):
        near(client.nets.disc.state_dict(), disc.state_dict())


@pytest.mark.parametrize("kind", [StepsThenJudges, JudgesThenSteps])
def test_what_clients_feed_back_is_about_as_large_as_is_usual(
    kind: type[DiscriminatorHalf],
) -> None:
    """Of images that one net makes, so that the guard knows what to expect."""
    server, clients = halves(kind, 1)
    nets = whole_nets(SPEC, initial_state(SPEC, 0, torch.float64))
    frames = usual_feedback(SPEC, nets, batch_size=BATCH, seed=0)
    assert [frame.keys() for frame in frames] == [
        spec.sent.keys() for spec in server.exchanges(None)
    ]
    given = server.iteration({}).answer(Exchange.GENERATE, {k: {} for k in CLIENTS})
    for k, client in enumerate(clients):
        steps = client.iteration(stream(k)[0])
        next(steps)
        feedback = steps.send({name: t.clone() for name, t in given[k].items()})[JUDGED]
        times = feedback.square().mean().sqrt() / frames[Exchange.FEEDBACK][JUDGED].level
        assert 1 / 5 < times < 5


def near(ours: State, due: State) -> None:
    for name, value in due.items():
        error = torch.linalg.vector_norm(ours[name].double() - value.double())
        assert error <= 1e-10 * torch.linalg.vector_norm(value.double()), f"{name}: {error:g}"


def test_discriminators_change_places() -> None:
    """All of them, and every way is as likely."""
    random = np.random.default_rng(0)
    found = Counter(tuple(deranged((1, 2, 3, 4), random)) for _ in range(9000))
    orders = itertools.permutations((1, 2, 3, 4))
    every = [order for order in orders if all(map(int.__ne__, order, (1, 2, 3, 4)))]
    assert found.keys() == set(every)
    assert 850 < min(found.values()) <= max(found.values()) < 1150
    assert deranged([7], random) == [7]


class Recording(CentralGenerator):
    """Keeps what clients bring back, and what they go on with."""

    def discriminator(self, server_round: int, updates: list[Update]) -> State:
        self.brought = [update.state for update in updates]
        return super().discriminator(server_round, updates)

    @property
    def kept(self) -> list[State]:
        return [self.begins_with(info) for info in self.roster.clients.values()]


class RecordingMDGAN(Recording, MDGAN):
    pass


class RecordingFedSplitGAN(Recording, FedSplitGAN):
    pass


def trained(folder: Path, strategy: str, **settings: int) -> Recording:
    """The strategy of a run of two rounds, whose generator has learned something."""
    name = f"{__name__}:{strategy}"
    config = tiny(strategy=name, num_server_rounds=2, output_dir="out", **settings)
    engine = Engine(config, str(folder))
    engine.run()
    found = engine.strategy
    assert isinstance(found, Recording)
    gen = next(f"gen.{name}" for name, _ in found.generator.nets.gen.named_parameters())
    first = initial_state(config.net_spec, config.seed)[gen]
    assert not torch.equal(found.models[0][gen], first)
    return found


@pytest.mark.parametrize(("swap", "moved"), [(2, True), (3, False)])
def test_clients_of_mdgan_go_on_with_what_others_have_trained(
    swap: int, moved: bool, folder: Path
) -> None:
    """When it is time to."""
    strategy = trained(folder, "RecordingMDGAN", mdgan_swap=swap)
    brought, kept = (list(map(bytes_of, states)) for states in (strategy.brought, strategy.kept))
    assert all((a != b) is moved for a, b in zip(brought, kept, strict=True))
    assert sorted(map(str, brought)) == sorted(map(str, kept))


def test_clients_of_federated_split_gans_go_on_with_the_mean(folder: Path) -> None:
    """However unequal they are: of three clients in two domains, one is alone in its own."""
    strategy = trained(folder, "RecordingFedSplitGAN")
    for name, value in strategy.kept[0].items():
        versions = torch.stack([state[name] for state in strategy.brought])
        due = versions.mean(dim=0) if value.is_floating_point() else versions.amax(dim=0)
        assert torch.allclose(value, due)
    assert all(bytes_of(state) == bytes_of(strategy.kept[0]) for state in strategy.kept)
