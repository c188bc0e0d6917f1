"""The attacks of a curious server on the clients that have the same blocks and the same cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from huscf_flwr.data.batches import Batch, BatchStream, LabelledImages
from huscf_flwr.data.draws import Purpose, seeded
from huscf_flwr.privacy.decoder import Decoded, Decoder, Lesson, train_decoder
from huscf_flwr.privacy.observing import Observed, observe
from huscf_flwr.privacy.rebuilding import (
    INVERSION,
    Attempt,
    Rebuilt,
    Sender,
    Victim,
    compared,
    labels_to_generate,
    rebuild,
)
from huscf_flwr.split.segments import Segments

DECODER, GRADIENTS = "a decoder of activations", "a decoder of gradients"
"""Two more attacks, by name."""

_DECODER_STEPS = 300
_LESSONS = 50
_LESSON_CLIENT = 1_000_000  # draws of the attacker's own

DECODER_STEPS_A_KIND = 2 * _DECODER_STEPS
"""How often `Kind` calls its `progress`."""


@dataclass(frozen=True)
class Served:
    """What a server has beside a client.

    Attributes
    ----------
    sender: what it knows of the client.
    segments: the server's own blocks.
    batch_size: of the run.
    """

    sender: Sender
    segments: Segments
    batch_size: int

    def observed(self, batch: Batch) -> Observed:
        """What a client sends of a batch."""
        return observe(self.sender.half, self.segments, self.sender.cut, batch)


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
        sender, known, seed = self._served.sender, self._auxiliary, self._seed
        seen = self._served.observed(victim.batch)
        found = rebuild(sender, seen.real, known, seed=seed)
        decoded = {
            DECODER: _decoded(self._decoder, seen.real),
            GRADIENTS: _decoded(self._of_gradients, seen.gradients),
        }
        attempts = {INVERSION: found.pop(INVERSION), **decoded, **found}
        to_generate = labels_to_generate(
            sender, seen.generator, victim.batch.fake_labels, seed=seed
        )
        return compared(sender, victim, attempts, to_generate, known, seed=seed)

    def _lesson(self, number: int) -> tuple[Batch, Tensor, Tensor]:
        """A batch of auxiliary images, with noise if clients add it, and what they really are."""
        sender, draws = self._served.sender, seeded(self._seed, _LESSON_CLIENT + number)
        stream = BatchStream(
            self._auxiliary,
            batch_size=self._served.batch_size,
            latent_size=sender.shapes.latent_size,
            draws=draws,
        )
        batch = stream[0]
        real, labels = batch.images, batch.labels
        if sender.noise is not None:
            random = draws(Purpose.FOR_GOOD)
            noisy = real + sender.noise.of_images(real.shape, random)
            said = sender.noise.of_labels(labels, random)
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
        classes = self._served.sender.num_classes
        return train_decoder(
            lessons, classes, steps=_DECODER_STEPS, seed=self._seed, progress=progress
        )


def _decoded(decoder: Decoder, sent: Tensor) -> Attempt:
    with torch.no_grad():
        found: Decoded = decoder(sent)
    return Attempt(found.images, found.labels.argmax(dim=1))
