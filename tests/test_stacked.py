"""Clients that are computed as one compute what they compute one after the other."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from conftest import BATCH, CUTS, RATE, SHAPES, SPEC, plans, segments, stream, tiny
from torch import Tensor, nn

from huscf_flwr.data.batches import Batch
from huscf_flwr.nets import Blocks, NetSpec, State, initial_state, net_shapes, register_net
from huscf_flwr.nets.cgan import cgan
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.runner.in_process import InProcessRunner
from huscf_flwr.runner.session import SessionOutcome
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Iteration, Segments
from huscf_flwr.split.stacked import HeadsAndTailsStacker, StackedHeadsAndTails
from huscf_flwr.tensors import Tensors
from simulations.engine import Engine
from simulations.launches import per_iteration

ONE, TWO, THREE = CUTS[0], CUTS[5], CUTS[15]
MIXED = [ONE, THREE, ONE, TWO, THREE, ONE]


def batch(client: int, index: int) -> Batch:
    return stream(client)[index]


def half_of(cut: Cut, state: State, kind: type[HeadsAndTails] = HeadsAndTails) -> HeadsAndTails:
    """With a low rate, as Adam's first steps make much of rounding."""
    return kind(SPEC, SHAPES, cut, state, learning_rate=1e-3, batch_size=BATCH)


class Trained:
    """What clients and a server have after a round or several, stacked or not."""

    def __init__(
        self,
        cuts: list[Cut],
        *,
        stack: bool,
        cohort: int | None = None,
        server: Segments | None = None,
    ) -> None:
        self.cuts, self.stack, self.cohort = cuts, stack, cohort
        self.server = server or segments(torch.float64)
        self.nets = [initial_state(SPEC, seed, torch.float64) for seed in range(len(cuts))]
        self.moments: list[State] = [{} for _ in cuts]
        self.losses: list[list[float]] = [[] for _ in cuts]
        self.outcomes: list[SessionOutcome] = []
        self.failed: dict[int, Exception] = {}

    def round(
        self,
        iterations: int = 2,
        batches: Callable[[int, int], Batch] = batch,
        without: int | None = None,
    ) -> "Trained":
        """Train one, from what the one before has left, as clients do; `without` one of them."""
        halves = {}
        for k, cut in enumerate(self.cuts):
            if k != without:
                halves[k] = half_of(cut, self.nets[k])
                halves[k].optimisers.load(self.moments[k])
        runner = InProcessRunner(
            self.cohort, stacker=HeadsAndTailsStacker() if self.stack else None
        )
        runner.open_round(1, plans(self.server, self.cuts, iterations))
        parts = {
            k: ClientTraining(half, lambda i, k=k: batches(k, i), iterations)  # type: ignore[misc]
            for k, half in halves.items()
        }
        with ThreadPoolExecutor(2) as workers:
            self.failed = runner.train(parts, workers)
        self.outcomes = runner.close_round()
        for k, half in halves.items():
            assert all(parameter.grad is None for parameter in half.nets.parameters())
            self.losses[k] += [value for loss in parts[k].results for value in astuple(loss)]
            if k not in self.failed:
                self.nets[k] = {**self.nets[k], **half.nets.state_dict()}
                self.moments[k] = half.optimisers.state()
        return self

    def check_like(self, other: "Trained") -> None:
        """Equal but for rounding: by 1e-10 at most, of every tensor's norm."""
        for own, others in zip(self.losses, other.losses, strict=True):
            assert own == pytest.approx(others, rel=1e-10)
        served = [(t.server.state(), t.server.optimisers.state()) for t in (self, other)]
        for own, due in zip(
            [*served[0], *self.nets, *self.moments],
            [*served[1], *other.nets, *other.moments],
            strict=True,
        ):
            assert own.keys() == due.keys()
            for name, value in own.items():
                check_close(value, due[name], name)
        for one, two in zip(self.outcomes, other.outcomes, strict=True):
            assert (one.client, one.iterations, one.failure) == (
                two.client,
                two.iterations,
                two.failure,
            )
            assert (one.result is None) == (two.result is None)
            if one.result is not None and two.result is not None:
                check_close(one.result, two.result, "result")


def check_close(value: Tensor, due: Tensor, name: str) -> None:
    error = torch.linalg.vector_norm(value.double() - due.double())
    assert error <= 1e-10 * torch.linalg.vector_norm(due.double()), f"{name}: {error:g}"


@pytest.fixture(autouse=True)
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clients have been stacked, stack by stack."""
    made: list[int] = []
    stack = HeadsAndTailsStacker.stack

    def watched(self: HeadsAndTailsStacker, halves: list[HeadsAndTails]) -> StackedHeadsAndTails:
        made.append(len(halves))
        return stack(self, halves)

    monkeypatch.setattr(HeadsAndTailsStacker, "stack", watched)
    return made


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_clients_of_one_cut(cut: Cut, stacked: list[int]) -> None:
    apart = Trained([cut] * 3, stack=False).round()
    assert not stacked
    Trained([cut] * 3, stack=True).round().check_like(apart)
    assert stacked == [3]


@pytest.mark.parametrize(
    ("cohort", "stacks"), [(None, [1, 2, 3]), (2, [1] * 6), (3, [1, 1, 1, 1, 2])]
)
def test_clients_of_several_cuts(
    cohort: int | None, stacks: list[int], stacked: list[int]
) -> None:
    """Each group is stacked once in a round, whoever else shares its iterations."""
    Trained(MIXED, stack=True, cohort=cohort).round().check_like(
        Trained(MIXED, stack=False, cohort=cohort).round()
    )
    assert sorted(stacked) == stacks


@pytest.mark.parametrize("first", [True, False])
def test_rounds_go_on_from_each_other_either_way(first: bool) -> None:
    """With the moments of the round before; one client has missed that, and has none."""

    def two_rounds(*stack: bool) -> Trained:
        trained = Trained(MIXED, stack=stack[0]).round(2, without=2)
        trained.stack = stack[1]
        return trained.round(2, lambda client, index: batch(client, index + 2))

    two_rounds(first, not first).check_like(two_rounds(False, False))


def at(place: int, spoil: Callable[[Batch], Batch]) -> Callable[[int, int], Batch]:
    """Batches of which one of client 2 is spoilt."""
    return lambda client, i: (
        spoil(batch(client, i)) if (client, i) == (2, place) else batch(client, i)
    )


def unreadable(own: Batch) -> Batch:
    raise OSError("the disk is full")


FAULTS = {
    "raises": (unreadable, "raised OSError before exchange GENERATE"),
    "no numbers": (
        lambda own: own._replace(latent=own.latent * float("nan")),
        'sent an invalid frame in exchange GENERATE of iteration 1 of round 1: "fake" has values',
    ),
    "too large": (
        lambda own: own._replace(images=own.images.double() * float("inf")),
        'sent an invalid frame in exchange DISCRIMINATE of iteration 1 of round 1: "real"',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("cohort", [None, 3])
def test_a_client_that_fails_is_left_out(
    fault: str, cohort: int | None, stacked: list[int]
) -> None:
    """The others of its group go on, in a new one, as if it had never been in theirs."""
    spoil, message = FAULTS[fault]
    found = [
        Trained([ONE] * 4, stack=stack, cohort=cohort).round(4, at(1, spoil))
        for stack in (False, True)
    ]
    found[1].check_like(found[0])
    assert message in (found[1].outcomes[2].failure or "")
    assert list(found[1].failed) == [2]
    assert [outcome.iterations for outcome in found[1].outcomes] == [4, 4, 1, 4]
    assert cohort is not None or stacked == [4, 3]


class Spoiling(Segments):
    """Answers client 2 with nonsense, or refuses it, in an exchange of the first iteration."""

    def __init__(self, exchange: Exchange, refuse: bool) -> None:
        nets = segments(torch.float64).nets
        super().__init__(nets, SHAPES, batch_size=BATCH, learning_rate=RATE)
        self._exchange, self._refuse = exchange, refuse
        self._begun = 0

    def iteration(self, places: Mapping[int, Cut]) -> Iteration:
        iteration = super().iteration(places)
        self._begun += 1
        if self._begun == 1:
            answer = iteration.answer

            def spoilt(exchange: int, requests: Mapping[int, Tensors]) -> dict[int, Tensors]:
                answers = answer(exchange, requests)
                if exchange == self._exchange and self._refuse:
                    iteration.refused[2] = "is out of line"
                    del answers[2]
                elif exchange == self._exchange:
                    answers[2] = {n: v * float("nan") for n, v in answers[2].items()}
                return answers

            iteration.answer = spoilt  # type: ignore[method-assign]
        return iteration


@pytest.mark.parametrize("exchange", Exchange, ids=lambda exchange: exchange.name)
@pytest.mark.parametrize("refuse", [True, False])
def test_a_client_that_is_out_in_the_middle_of_an_iteration(
    exchange: Exchange, refuse: bool, stacked: list[int]
) -> None:
    """Its row goes on with whatever it holds, which is nothing to the others."""
    found = [
        Trained([THREE] * 4, stack=stack, server=Spoiling(exchange, refuse)).round()
        for stack in (False, True)
    ]
    found[1].check_like(found[0])
    assert list(found[1].failed) == [2] and stacked == [4, 3]


def test_when_all_of_a_group_are_out_the_others_go_on() -> None:
    def batches(client: int, index: int) -> Batch:
        own = batch(client, index)
        return own._replace(latent=own.latent * float("nan")) if client in (1, 4) else own

    found = [Trained(MIXED, stack=stack).round(2, batches) for stack in (False, True)]
    found[1].check_like(found[0])
    assert list(found[1].failed) == [1, 4]


class Noisy(nn.Module):
    """Draws at random: stacked clients would draw other numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Counting(nn.Module):
    """Has a buffer that is replaced, not changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return x * self.seen


class Deciding(nn.Module):
    """Does what values say."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else 2 * x


class PerSample(nn.Module):
    """Does what no batch norm or convolution does, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.norm = nn.GroupNorm(2, 4)
        self.free = nn.BatchNorm2d(4, affine=False, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.free(self.norm(x) * self.scale).clamp(-2, 2).roll(1, dims=2)


MODULES = {"noisy": Noisy, "counting": Counting, "deciding": Deciding, "per-sample": PerSample}


def register(name: str) -> None:
    @register_net(name)
    def build(spec: NetSpec) -> Blocks:
        found = cgan(spec)
        found.discriminator[0] = Followed(found.discriminator[0], MODULES[name]())
        return found


class Followed(nn.Module):
    def __init__(self, block: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.block, self.module = block, module

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.module(self.block(x, labels))
        return out


for name in MODULES:
    register(name)


@pytest.mark.parametrize(
    ("net", "problem"),
    [
        ("noisy", "RuntimeError: vmap: called random operation"),
        ("counting", "it would compute other values"),
        ("deciding", "RuntimeError: vmap: It looks like you're attempting to use a Tensor"),
        ("per-sample", ""),
        ("resize", ""),
    ],
)
def test_a_net_that_cannot_be_stacked_is_not(
    net: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = NetSpec(net=net, image_size=16, channels=1, num_classes=3, width=4)
    half = HeadsAndTails(
        spec, net_shapes(spec), ONE, initial_state(spec, 0), learning_rate=RATE, batch_size=BATCH
    )
    with caplog.at_level(logging.WARNING):
        kinds = [HeadsAndTailsStacker().kind(half) for _ in range(2)]
    assert all(kind is None for kind in kinds) == bool(problem)
    assert len(caplog.records) == bool(problem)
    if problem:
        assert f'net="{net}" cannot be computed for several clients' in caplog.text
        assert problem in caplog.text


def test_a_half_with_another_iteration_is_not_stacked() -> None:
    class Own(HeadsAndTails):
        pass

    assert HeadsAndTailsStacker().kind(half_of(ONE, initial_state(SPEC, 0), Own)) is None


@pytest.mark.usefixtures("few_steps")
def test_a_run_goes_on_from_one_in_which_clients_were_stacked(
    folder: Path, stacked: list[int]
) -> None:
    """As from any other, within rounding."""
    settings = {"cuts": "1-1-1-1", "cohort": "all", "clusters": "1", "domains": "one.npz"}

    def run(stack: bool, rounds: int, name: str, **more: str) -> State:
        config = tiny(num_server_rounds=rounds, output_dir=name, **settings, **more)
        engine = Engine(config, str(folder))
        if stack:
            engine.strategy.runner = InProcessRunner(None, stacker=HeadsAndTailsStacker())  # type: ignore[attr-defined]
        engine.run()
        return engine.strategy.models[0]

    whole = run(False, 2, "whole")
    assert not stacked
    run(True, 1, "first")
    assert stacked == [3]
    for name, value in run(False, 2, "more", resume="first").items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cut", [ONE, THREE], ids=str)
def test_launches_and_waits(cut: Cut) -> None:
    """Of eight clients: a third or less of what the largest cut takes one after the other."""
    apart, stacked = (
        per_iteration(SPEC, cut, 8, stacker) for stacker in (None, HeadsAndTailsStacker())
    )
    assert apart.client > 100 and apart.waits == 18
    assert stacked.client < 33 and stacked.client < apart.client / 5
    assert stacked.waits == 1
    assert stacked.server == apart.server
