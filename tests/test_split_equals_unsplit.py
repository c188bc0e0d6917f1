"""Split training is the plain computation, whatever the cuts; TLS changes no byte of it."""

import itertools
from dataclasses import astuple, replace
from functools import partial

import pytest
import torch
from conftest import (
    BATCH,
    CUTS,
    RATE,
    SHAPES,
    SPEC,
    bytes_of,
    dial,
    running,
    segments,
    stream,
    train_all,
    train_in_process,
    trainer,
)
from torch import Tensor, nn

from huscf_flwr.nets import PartialGAN, State, initial_state, select_blocks
from huscf_flwr.nets.losses import BCE, LOSSES
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.procedure import advance
from huscf_flwr.split.cuts import Cut, Span
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.wire.codings import CODINGS
from huscf_flwr.wire.frame_server import FrameServer


class Plain:
    """The unsplit computation: one autograd graph through all clients' and the server's blocks.

    A block of the server is one module that all clients' batches pass together; a block of a
    client is a copy of its own.
    """

    def __init__(self, cuts: list[Cut], state: State, loss: str = BCE) -> None:
        self.cuts, self.loss = cuts, LOSSES[loss]
        self.server = PartialGAN(SPEC, state, gen=range(1, 4), disc=range(1, 4))
        self.clients = [PartialGAN(SPEC, state, gen=range(5), disc=range(5)) for _ in cuts]
        everything = [self.server, *self.clients]
        gen = [p for nets in everything for p in nets.gen.parameters()]
        disc = [p for nets in everything for p in nets.disc.parameters()]
        self.gen = torch.optim.Adam(gen, RATE, (0.5, 0.999))
        self.disc = torch.optim.Adam(disc, RATE, (0.5, 0.999))

    def forward(self, net: str, inputs: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        spans: list[Span] = [getattr(cut, net)(SHAPES) for cut in self.cuts]
        out = list(inputs)
        for index in range(5):
            joint = [k for k, span in enumerate(spans) if index in span.server]
            for k in range(len(out)):
                if k not in joint:
                    block: nn.Module = getattr(self.clients[k], net)[str(index)]
                    out[k] = block(out[k], labels[k]) if index == 0 else block(out[k])
            if joint:
                block = getattr(self.server, net)[str(index)]
                made = block(torch.cat([out[k] for k in joint])).split(BATCH)
                for k, part in zip(joint, made, strict=True):
                    out[k] = part
        return out

    def iteration(self, index: int) -> list[tuple[float, float]]:
        batches = [stream(k)[index] for k in range(len(self.cuts))]
        labels = [batch.labels for batch in batches]
        fake_labels = [batch.fake_labels for batch in batches]
        fake = self.forward("gen", [b.latent.double() for b in batches], fake_labels)
        on_fake = self.forward("disc", [x.detach() for x in fake], fake_labels)
        on_real = self.forward("disc", [b.images.double() for b in batches], labels)
        pairs = zip(on_fake, on_real, strict=True)
        disc = [self.loss.if_fake(fake) + self.loss.if_real(real) for fake, real in pairs]
        self.disc.zero_grad()
        sum(disc).backward()
        self.disc.step()
        gen = [self.loss.generator(x) for x in self.forward("disc", fake, fake_labels)]
        self.gen.zero_grad()
        sum(gen).backward()
        self.gen.step()
        return [(g.item(), d.item()) for g, d in zip(gen, disc, strict=True)]


def check_iteration(cuts: list[Cut]) -> None:
    state = initial_state(SPEC, 0, torch.float64)
    plain = Plain(cuts, state)
    expected_losses = plain.iteration(0)
    trainers = [trainer(cut, state) for cut in cuts]
    server = segments(torch.float64)
    losses, outcomes = train_in_process(server, trainers, cuts, 1)
    assert all(outcome.failure is None for outcome in outcomes)
    for (loss,), expected in zip(losses, expected_losses, strict=True):
        assert astuple(loss) == pytest.approx(expected, rel=1e-10)
    check_equal(server.nets.state_dict(), plain.server.state_dict(), cuts)
    for k, split in enumerate(trainers):
        check_equal(split.nets.state_dict(), plain.clients[k].state_dict(), cuts)


def check_equal(ours: State, plain: State, cuts: list[Cut]) -> None:
    """Relative error of every tensor, in norm, at most 1e-10."""
    for name, value in ours.items():
        due = plain[name].double()
        error = torch.linalg.vector_norm(value.double() - due)
        assert error <= 1e-10 * torch.linalg.vector_norm(due), f"{name}, {cuts}: {error:g}"


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_one_client(cut: Cut) -> None:
    check_iteration([cut])


@pytest.mark.parametrize("first", CUTS, ids=str)
def test_three_clients(first: Cut) -> None:
    """All combinations of three cuts; clients are interchangeable, so order does not matter."""
    later = CUTS[CUTS.index(first) :]
    for second, third in itertools.combinations_with_replacement(later, 2):
        check_iteration([first, second, third])


@pytest.mark.parametrize("loss", LOSSES)
def test_unsplit_trainer_is_the_plain_computation(loss: str) -> None:
    state = initial_state(SPEC, 0, torch.float64)
    plain = Plain([CUTS[0]], state, loss)
    whole = UnsplitTrainer(replace(SPEC, loss=loss), SHAPES, state, learning_rate=RATE)
    batch = stream(0)[0]
    batch = batch._replace(images=batch.images.double(), latent=batch.latent.double())
    loss = whole.iteration(batch)
    assert astuple(loss) == pytest.approx(plain.iteration(0)[0], rel=1e-10)
    served = {**plain.clients[0].state_dict(), **plain.server.state_dict()}
    check_equal(whole.nets.state_dict(), served, [CUTS[0]])


def test_with_noise_of_the_clients_own() -> None:
    """Fakes are shown with the noise of the batch, and their labels as they are said."""
    state, cut = initial_state(SPEC, 0, torch.float64), CUTS[5]
    whole = UnsplitTrainer(SPEC, SHAPES, state, learning_rate=RATE)
    split, server = trainer(cut, state), segments(torch.float64)
    plain = stream(0)[0]
    noise = torch.randn(plain.images.shape, generator=torch.Generator().manual_seed(0))
    batch = plain._replace(said=(plain.fake_labels + 1) % 3, noise=noise)
    losses = whole.iteration(batch)
    iteration, steps = server.iteration({0: cut}), split.iteration(batch)
    request = advance(steps)
    for exchange in Exchange:
        assert request is not None
        answer = iteration.answer(exchange, {0: request})[0]
        iteration.step(exchange)
        request = advance(steps, {name: value.clone() for name, value in answer.items()})
    joined = {**split.nets.state_dict(), **select_blocks(server.state(), served(cut))}
    check_equal(joined, whole.nets.state_dict(), [cut])
    without = UnsplitTrainer(SPEC, SHAPES, state, learning_rate=RATE).iteration(plain)
    assert abs(losses.discriminator - without.discriminator) > 1e-3


def served(cut: Cut) -> dict[str, range]:
    return {"gen": cut.gen(SHAPES).server, "disc": cut.disc(SHAPES).server}


@pytest.mark.parametrize("wire", CODINGS)
def test_the_network_gives_the_same_bytes(wire: str) -> None:
    """Frames over the network, with a thread for each client, and clients driven step by step."""
    cuts, coding = [CUTS[0], CUTS[7], CUTS[13]], CODINGS[wire]
    state = initial_state(SPEC, 0)
    found = []
    for remote in (False, True):
        trainers, server = [trainer(cut, state) for cut in cuts], segments()
        if remote:
            with running(server, cohort=None) as runner:
                runner.expect(1, cuts, 4)
                port = FrameServer(runner, "127.0.0.1:0", coding=coding)
                losses = train_all(runner, trainers, 4, partial(dial, port, coding=coding))
                port.close()
                outcomes = runner.close_round()
        else:
            losses, outcomes = train_in_process(server, trainers, cuts, 4, coding=coding)
        states = [bytes_of(server.state()), *(bytes_of(t.nets.state_dict()) for t in trainers)]
        taps = [o.result.numpy().tobytes() for o in outcomes if o.result is not None]
        assert len(taps) == 3
        found.append((losses, states, taps))
    assert found[0] == found[1]
