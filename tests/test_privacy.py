"""Attacks on clients' data: each finds what there is to find, and nothing where there is none."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import images
from torch import Tensor, nn

from huscf_flwr.data.batches import Batch, BatchStream, LabelledImages, to_unit
from huscf_flwr.data.draws import seeded
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.local_noise import LocalNoise
from huscf_flwr.data.sources import Domain, find_sources, load_domain
from huscf_flwr.evaluation.classifier import train_classifier
from huscf_flwr.nets import (
    Blocks,
    NetSpec,
    PartialGAN,
    initial_state,
    net_shapes,
    register_net,
    run_blocks,
)
from huscf_flwr.nets.generator import Generator
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.privacy import audit as audit_module
from huscf_flwr.privacy.accounting import local_privacy
from huscf_flwr.privacy.audit import DECODER, GRADIENTS, Kind, Served
from huscf_flwr.privacy.denoising import by_gaussians, by_neighbours
from huscf_flwr.privacy.exposure import BLURRED, HIDDEN, PLAIN, RECOGNISABLE, Exposure, Found
from huscf_flwr.privacy.fellows import learned, sole_labels
from huscf_flwr.privacy.inversion import Release, invert
from huscf_flwr.privacy.membership import Advantage, advantage, alike, attack_membership
from huscf_flwr.privacy.rebuilding import DENOISED, INVERSION, Sender, Victim
from huscf_flwr.privacy.similarity import psnr, ssim
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import all_segments

SPEC = NetSpec(image_size=16, channels=1, num_classes=10, width=16)
BATCH = 64


@pytest.fixture(scope="module")
def digits() -> Domain:
    (source,) = find_sources("digits", ".", data_root="data", download=False)
    return load_domain(source, ImageFormat(16, 1, 10))


def attacked(digits: Domain, cut: Cut, noise: LocalNoise | None = None) -> Exposure:
    """What the server of a default run sees of a client's first batch."""
    shapes, state = net_shapes(SPEC), initial_state(SPEC, 0)
    half = HeadsAndTails(SPEC, shapes, cut, state, learning_rate=2e-4, batch_size=BATCH)
    segments = all_segments(SPEC, state, batch_size=BATCH, learning_rate=2e-4)
    data, draws = digits.train, seeded(0, 0)
    if noise is not None:
        data = LabelledImages(*noise.for_good(to_unit(data.images), data.labels, draws))
    stream = BatchStream(data, batch_size=BATCH, latent_size=100, draws=draws, noise=noise)
    real = digits.train.select(stream.places(0))
    served = Served(Sender(half, cut, shapes, noise, 10), segments, BATCH)
    victim = Victim(0, "digits", stream[0], to_unit(real.images), real.labels, 0.1)
    return Kind(served, digits.test, seed=0).attack(victim).exposure


@pytest.mark.parametrize("cut", [Cut(1, 1, 1, 1), Cut(2, 2, 2, 2)], ids=str)
def test_without_noise_everything_is_found(cut: Cut, digits: Domain) -> None:
    """An audit that does not find this is broken."""
    found = attacked(digits, cut)
    assert found.word == PLAIN
    exact = found.attacks[INVERSION]
    assert exact.ssim is not None and exact.ssim > 0.995 and exact.labels == 1.0
    assert exact.psnr is not None and exact.psnr > (60 if cut.disc_head == 1 else 30)  # dB
    assert found.to_generate == 1.0
    decoded = found.attacks[DECODER]
    assert decoded.ssim is not None and found.another.ssim is not None
    assert decoded.ssim > found.another.ssim + 0.2 and decoded.labels is not None
    assert decoded.labels > 0.9
    if cut.disc_tail == 2:  # through a tail of one block, gradients all point the same way
        of_gradients = found.attacks[GRADIENTS].labels
        assert of_gradients is not None and of_gradients > 0.5


def test_what_noise_hides_is_not_found(digits: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_DECODER_STEPS", 30)  # others find more of noisy images
    found = attacked(digits, Cut(1, 1, 1, 1), LocalNoise(16.0, 0.25, 10))
    assert found.word == HIDDEN
    assert max(attack.labels or 0.0 for attack in found.attacks.values()) < 0.3
    some = attacked(digits, Cut(1, 1, 1, 1), LocalNoise(1.0, 0.0, 10))
    plain, mean_image = some.attacks[INVERSION].ssim, some.mean_image.ssim
    assert plain is not None and mean_image is not None and plain < mean_image
    for name in DENOISED:
        denoised = some.attacks[name].ssim
        assert denoised is not None and denoised > mean_image + 0.05


@pytest.mark.parametrize(
    ("domain", "size", "channels", "width", "blocks"),
    [
        ("digits", 28, 1, 64, 2),
        ("digits", 28, 1, 16, 2),
        ("textures", 32, 3, 16, 1),
        ("textures", 32, 3, 64, 2),
        ("textures", 32, 3, 16, 2),
    ],
)
def test_an_image_is_found_where_a_head_gives_more_numbers_than_it_has(
    domain: str, size: int, channels: int, width: int, blocks: int
) -> None:
    """Where it gives fewer, its label is."""
    (source,) = find_sources(domain, ".", data_root="data", download=False)
    data = load_domain(source, ImageFormat(size, channels, 10)).train
    spec = NetSpec(image_size=size, channels=channels, num_classes=10, width=width)
    nets = PartialGAN(spec, initial_state(spec, 0), gen=(), disc=range(blocks)).train()
    batch = BatchStream(data, batch_size=BATCH, latent_size=100, draws=seeded(0, 0))[0]
    release = released(list(nets.disc.values()), batch)
    found = invert([release], batch.images.shape[1:], 10, steps=200, seed=0)
    assert found.labels is not None and torch.equal(found.labels.argmax(dim=1), batch.labels)
    similar = float(ssim(found.inputs, batch.images).mean())
    enough = release.sent[0].numel() > batch.images[0].numel()
    assert similar > 0.99 if enough else similar < 0.7


def released(head: Sequence[nn.Module], batch: Batch) -> Release:
    with torch.no_grad():
        return Release(head, run_blocks(head, batch.images, batch.labels))


def test_releases_of_the_same_images_have_more_numbers_together() -> None:
    """A head that gives fewer numbers than an image has gives others in each iteration."""
    (source,) = find_sources("textures", ".", data_root="data", download=False)
    data = load_domain(source, ImageFormat(32, 3, 10)).train
    spec = NetSpec(image_size=32, channels=3, num_classes=10, width=16)
    stream = BatchStream(data, batch_size=16, latent_size=100, draws=seeded(0, 0))
    trainer = UnsplitTrainer(spec, net_shapes(spec), initial_state(spec, 0), learning_rate=2e-4)
    releases = []
    for iteration in range(61):
        if iteration % 20 == 0:
            head = [copy.deepcopy(trainer.nets.disc[str(i)]) for i in range(2)]
            releases.append(released(head, stream[0]))
        trainer.iteration(stream[iteration])
    one, all_ = (
        float(ssim(found.inputs, stream[0].images).mean())
        for found in (
            invert(which, (3, 32, 32), 10, steps=200, seed=0)
            for which in (releases[-1:], releases)
        )
    )
    assert all_ > 0.75 > 0.65 > one, (one, all_)


def test_heads_without_labels_are_inverted_too() -> None:
    block = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.Tanh())

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, given: Tensor, labels: Tensor) -> Tensor:
            out: Tensor = self.block(given)
            return out

    real = to_unit(images(4).images)
    with torch.no_grad():
        sent = block(real)
    found = invert([Release([Head()], sent)], real.shape[1:], 3, steps=200, seed=0)
    assert found.labels is None and found.error < 1e-4
    assert float(ssim(found.inputs, real).min()) > 0.99


def test_similarities_by_hand() -> None:
    real = to_unit(images(3).images)
    assert ssim(real, real).tolist() == pytest.approx([1.0] * 3)
    assert psnr(real, real).tolist() == pytest.approx([100.0] * 3)
    grey = torch.zeros(1, 1, 16, 16)
    assert psnr(grey, grey + 0.2).item() == pytest.approx(20.0)  # 10 log10(4 / 0.04)
    assert ssim(grey, grey + 0.2).item() < 0.1


def test_an_image_is_denoised_by_its_neighbours() -> None:
    known = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    noise = LocalNoise(math.sqrt(0.75), math.log(3), 2)  # with the bandwidth, a variance of 1
    given, said = torch.zeros(1, 1, 2, 2), torch.tensor([1])
    found = by_neighbours(given, said, known, torch.tensor([0, 1]), noise)
    odds = 3 * math.exp(-4 / 2)  # of the second: its label is said, its image is 2 away
    share = odds / (1 + odds)
    assert found.labels[0].tolist() == pytest.approx([1 - share, share])
    # A quarter of the variance is that of an image from its neighbour, and is kept.
    assert found.images.flatten().tolist() == pytest.approx([0.75 * share] * 4)


def test_an_image_is_denoised_as_a_gaussian() -> None:
    """As by Wiener's filter: in the one direction of a class, and of all others hardly a thing."""
    known = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [9.0, 9.0]]).view(3, 1, 1, 2)
    noise, beside = LocalNoise(1.0, 0.0, 2), 0.05**2
    found = by_gaussians(
        torch.tensor([[2.0, 1.0]]).view(1, 1, 1, 2), None, known, torch.tensor([0, 0, 1]), noise
    )
    due = [2 * (2 + beside) / (3 + beside), beside / (1 + beside)]  # of a variance of 2
    assert found.images.flatten().tolist() == pytest.approx(due, abs=1e-6)
    assert found.labels.argmax().item() == 0
    said = by_gaussians(
        torch.zeros(1, 1, 1, 2), torch.tensor([1]), known, torch.tensor([0, 0, 1]), noise
    )
    assert said.labels.argmax().item() == 1  # it is said, and labels are said as they are


def test_advantages_by_hand() -> None:
    found = advantage(np.array([3.0, 2.0]), np.array([1.0, 2.5]))
    assert found.auc == pytest.approx(3 / 4) and found.found_at_1_percent == 0.5
    assert advantage(np.ones(9), np.zeros(9)).found_at_1_percent == 1.0
    assert advantage(np.ones(9), np.ones(9)).auc == 0.5
    random = np.random.default_rng(0)
    none = advantage(random.random(4000), random.random(4000))
    assert none.auc == pytest.approx(0.5, abs=0.02)
    assert none.found_at_1_percent == pytest.approx(0.01, abs=0.01)


class _Stored(nn.Module):
    """Generates the same image for a label, whatever the latent vector."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.stored = nn.Embedding(3, pixels)

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.stored(labels)
        return out.view(-1, 1, 16, 16)


class _FirstPixel(nn.Module):
    """Finds images real by their first pixel."""

    def forward(self, given: Tensor, labels: Tensor) -> Tensor:
        return given.flatten(1)[:, :1]


@register_net("stored")
def stored(spec: NetSpec) -> Blocks:
    return Blocks([_Stored(256)], [_FirstPixel()], latent_size=2)


def remembering(real: Tensor) -> Generator:
    """A generator that gives these images (3, 1, 16, 16), one for each label."""
    spec = NetSpec(net="stored", image_size=16, channels=1, num_classes=3, width=1)
    return Generator(spec, {"gen.0.stored.weight": real.flatten(1)})


def test_a_generator_that_remembers_is_found_out() -> None:
    data, others = images(30, seed=1), images(45, seed=2)
    members, rest = alike(data, others, np.random.default_rng(0))
    assert torch.bincount(members.labels).tolist() == torch.bincount(rest.labels).tolist()
    assert len(members) == 30
    first = torch.stack([to_unit(members.images[members.labels == c][0]) for c in range(3)])
    leak = attack_membership(remembering(first), None, [(members, rest)], seed=0)
    assert leak.copies == leak.nearer == 1.0 and leak.by_discriminator is None
    assert leak.by_distance.found_at_1_percent >= 0.1  # the three of 30
    alone = alike(data.select(torch.arange(3)), others, np.random.default_rng(0))
    for pair in (alone, (members.select(torch.zeros(1, dtype=torch.long)), rest)):
        only = to_unit(pair[0].images)
        stored = torch.stack([only[int((pair[0].labels - c).abs().argmin())] for c in range(3)])
        assert attack_membership(remembering(stored), None, [pair], seed=0).copies > 0
    strangers = to_unit(images(3, seed=3).images)
    leak = attack_membership(remembering(strangers), None, [(members, rest)], seed=0)
    assert leak.copies == 0.0 and leak.by_distance.auc == pytest.approx(0.5, abs=0.2)


def test_members_are_told_by_a_discriminator_that_knows_them() -> None:
    members, rest = alike(images(30, seed=1), images(30, seed=2), np.random.default_rng(0))
    generator = remembering(to_unit(images(3, seed=3).images))
    disc = PartialGAN(generator.spec, {}, gen=(), disc=[0]).eval()
    for part, value in ((members, 200), (rest, 100)):
        part.images[:, 0, 0, 0] = value
    leak = attack_membership(generator, disc, [(members, rest)], seed=0)
    assert leak.by_discriminator == Advantage(1.0, 1.0) and leak.images == 30
    rest.images[:, 0, 0, 0] = 200
    leak = attack_membership(generator, disc, [(members, rest)], seed=0)
    assert leak.by_discriminator == Advantage(0.5, 0.0)


def test_a_class_of_one_client_is_recognised_among_its_fellows() -> None:
    assert sole_labels({3: np.array([5, 0, 2]), 7: np.array([1, 0, 0])}) == {2: 3}
    shades = torch.tensor([-0.9, 0.0, 0.9])
    labels = torch.arange(60) % 3
    shown = shades[labels][:, None, None, None].expand(-1, 1, 16, 16)
    noisy = shown + 0.05 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    classifier = train_classifier(noisy, labels, 3, seed=0)
    generator = remembering(shades[:, None, None, None].expand(-1, 1, 16, 16).contiguous())
    (found,) = learned(generator, classifier, {2: 3}, seed=0)
    assert (found.client, found.label, found.recognised, found.otherwise) == (3, 2, 1.0, 0.0)


@pytest.mark.parametrize(
    ("best", "word"), [(0.95, PLAIN), (0.7, RECOGNISABLE), (0.6, BLURRED), (0.54, HIDDEN)]
)
def test_words_of_exposure(best: float, word: str) -> None:
    attacks = {"one": Found(best, 10.0, 0.5), "two": Found(0.1, 5.0, 0.6)}
    attacks["none"] = Found(None, None, None)
    mean, other = Found(0.5, 1.0, None), Found(0.45, 1.0, None)
    exposure = Exposure(0, "a", "1-1-1-1", attacks, mean, other, 0.1, 0.1, None)
    assert exposure.word == word


def test_promises_are_the_accountants() -> None:
    found = local_privacy(LocalNoise(16.0, 1.5, 10), ImageFormat(16, 1, 10))
    # Sensitivity 32, a multiplier of 0.5: Balle and Wang's analytic Gaussian mechanism.
    assert found.image_epsilon == pytest.approx(9.997, abs=1e-3) and found.label_epsilon == 1.5
    labels_alone = local_privacy(LocalNoise(0.0, 1.5, 10), ImageFormat(16, 1, 10))
    assert labels_alone.image_epsilon is None
