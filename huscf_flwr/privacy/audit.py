"""The attacks of a curious server on the clients that have the same blocks and the same cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch, BatchStream, LabelledImages, to_unit
from huscf_flwr.data.draws import Purpose, seeded
from huscf_flwr.data.local_noise import LocalNoise
from huscf_flwr.nets import NetShapes
from huscf_flwr.privacy.decoder import Decoded, Decoder, Lesson, train_decoder
from huscf_flwr.privacy.denoising import by_gaussians, by_neighbours
from huscf_flwr.privacy.exposure import Exposure, Found
from huscf_flwr.privacy.inversion import invert
from huscf_flwr.privacy.observing import Observed, observe
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments

INVERSION = "inversion"
DENOISED = {
    "inversion, denoised by neighbours": by_neighbours,
    "inversion, denoised by Gaussians": by_gaussians,
}
DECODER, GRADIENTS = "a decoder of activations", "a decoder of gradients"
"""The attacks, by name."""

_INVERSION_STEPS = 200
_DECODER_STEPS = 300
_LESSONS = 50
_LESSON_CLIENT = 1_000_000  # draws of the attacker's own

DECODER_STEPS_A_KIND = 2 * _DECODER_STEPS
"""How often `Kind` calls its `progress`."""


@dataclass(frozen=True)
class Served:
    """What a server knows of clients of one kind: their blocks, its own, and where the cut is.

    Attributes
    ----------
    half: a client's half, with the parameters it was handed.
    segments: the server's.
    cut, shapes: of their nets.
    noise: what clients add to their data, which the run config tells everybody; or None.
    batch_size, num_classes: of the run.
    """

    half: HeadsAndTails
    segments: Segments
    cut: Cut
    shapes: NetShapes
    noise: LocalNoise | None
    batch_size: int
    num_classes: int

    def observed(self, batch: Batch) -> Observed:
        """What a client sends of a batch."""
        return observe(self.half, self.segments, self.cut, batch)


@dataclass(frozen=True)
class Victim:
    """A client that is attacked.

    Attributes
    ----------
    number, domain: who it is.
    batch: what it trains on, as it is sent through its head.
    images, labels: the real images of that, float (B, C, H, W), and their labels.
    most_common: share of its most common class.
    """

    number: int
    domain: str
    batch: Batch
    images: Tensor
    labels: Tensor
    most_common: float


@dataclass(frozen=True)
class Rebuilt:
    """Images that attacks made of a batch, by attack; and what was found."""

    images: dict[str, Tensor]
    exposure: Exposure


class Kind:
    """An attacker who has prepared for clients of one kind, with images that are nobody's."""

    def __init__(
        self,
        served: Served,
        auxiliary: LabelledImages,
        *,
        seed: int,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Train the decoders.

        Parameters
        ----------
        served: what it knows of them.
        auxiliary: other images of their domain, with labels; uint8 (n, C, H, W).
        seed: of all that is random.
        progress: called after each step of training.
        """
        self._served = served
        self._auxiliary = auxiliary
        self._seed = seed
        batches = [self._lesson(number) for number in range(_LESSONS)]
        observed = [served.observed(batch) for batch, _, _ in batches]
        self._decoder = self._trained([seen.real for seen in observed], batches, progress)
        self._of_gradients = self._trained([s.gradients for s in observed], batches, progress)

    def attack(self, victim: Victim) -> Rebuilt:
        """What the server could see of a client of this kind."""
        served, batch = self._served, victim.batch
        seen = served.observed(batch)
        images: dict[str, Tensor] = {}
        labels: dict[str, Tensor | None] = {}

        inverted = invert(
            [served.half.nets.disc[str(i)] for i in range(served.cut.disc_head)],
            seen.real,
            batch.images.shape[1:],
            served.num_classes,
            steps=_INVERSION_STEPS,
            seed=self._seed,
        )
        images[INVERSION] = inverted.inputs
        said = None if inverted.labels is None else inverted.labels.argmax(dim=1)
        labels[INVERSION] = said
        for name, decoder, sent in (
            (DECODER, self._decoder, seen.real),
            (GRADIENTS, self._of_gradients, seen.gradients),
        ):
            images[name], labels[name] = _decoded(decoder, sent)
        if served.noise is not None:
            known, known_labels = to_unit(self._auxiliary.images), self._auxiliary.labels
            for name, denoise in DENOISED.items():
                found = denoise(inverted.inputs, said, known, known_labels, served.noise)
                images[name], labels[name] = found.images, found.labels.argmax(dim=1)

        mean_image, another = self._without_attack(victim)
        exposure = Exposure(
            victim.number,
            victim.domain,
            str(served.cut),
            {n: Found.of(images[n], labels[n], victim.images, victim.labels) for n in images},
            Found.of(mean_image, None, victim.images, victim.labels),
            Found.of(another, None, victim.images, victim.labels),
            1 / served.num_classes,
            victim.most_common,
            self._labels_to_generate(seen.generator, batch),
        )
        return Rebuilt(images, exposure)

    def _labels_to_generate(self, sent: Tensor, batch: Batch) -> float | None:
        served = self._served
        found = invert(
            [served.half.nets.gen[str(i)] for i in range(served.cut.gen_head)],
            sent,
            (served.shapes.latent_size,),
            served.num_classes,
            steps=_INVERSION_STEPS,
            seed=self._seed,
        )
        if found.labels is None:
            return None
        return float((found.labels.argmax(dim=1) == batch.fake_labels).float().mean())

    def _lesson(self, number: int) -> tuple[Batch, Tensor, Tensor]:
        """A batch of auxiliary images, with noise if clients add it, and what they really are."""
        served, draws = self._served, seeded(self._seed, _LESSON_CLIENT + number)
        stream = BatchStream(
            self._auxiliary,
            batch_size=served.batch_size,
            latent_size=served.shapes.latent_size,
            draws=draws,
        )
        batch = stream[0]
        real, labels = batch.images, batch.labels
        if served.noise is not None:
            random = draws(Purpose.FOR_GOOD)
            noisy = real + served.noise.of_images(real.shape, random)
            said = served.noise.of_labels(labels, random)
            batch = batch._replace(images=noisy, labels=said)
        return batch, real, labels

    def _trained(
        self,
        sent: Sequence[Tensor],
        batches: Sequence[tuple[Batch, Tensor, Tensor]],
        progress: Callable[[], None],
    ) -> Decoder:
        lessons = [
            Lesson(frame, images, labels)
            for frame, (_, images, labels) in zip(sent, batches, strict=True)
        ]
        classes = self._served.num_classes
        return train_decoder(
            lessons, classes, steps=_DECODER_STEPS, seed=self._seed, progress=progress
        )

    def _without_attack(self, victim: Victim) -> tuple[Tensor, Tensor]:
        """For each image of a client the mean one of its class, and another one of it."""
        known, labels = to_unit(self._auxiliary.images), self._auxiliary.labels
        random = np.random.default_rng(self._seed)
        means, others = [], []
        for label in victim.labels:
            of_class = known[labels == label]
            of_class = of_class if len(of_class) else known
            means.append(of_class.mean(dim=0))
            others.append(of_class[random.integers(len(of_class))])
        return torch.stack(means), torch.stack(others)


def _decoded(decoder: Decoder, sent: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found: Decoded = decoder(sent)
    return found.images, found.labels.argmax(dim=1)
