"""A learned decoder: from what clients send to images and labels, taught on images of one's own.

The attacker runs other images of the domain through copies of a client's blocks, and learns the
way back. It needs no exact inverse, and finds what is likely where information is lost.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from huscf_flwr.system.seeding import torch_seeded

_WIDTH = 64
_LABELS_IN_LOSS = 0.1


@dataclass(frozen=True)
class Lesson:
    """A batch of the attacker's own.

    Attributes
    ----------
    sent: what a client would send of it, float (B, *features).
    images, labels: what it is of: (B, C, H, W) in [-1, 1] and int64 (B,).
    """

    sent: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Decoded:
    """Images (n, C, H, W), and logits of their labels (n, classes)."""

    images: Tensor
    labels: Tensor


class Decoder(nn.Module):
    """From a feature map to an image and the logits of a label."""

    def __init__(self, sent: Sequence[int], image: Sequence[int], num_classes: int) -> None:
        """For what is sent of one sample, and images, of these shapes."""
        super().__init__()
        self._shape = tuple(sent) if len(sent) == 3 else (math.prod(sent), 1, 1)
        self._size = tuple(image[1:])
        features = math.prod(sent)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        factor = max(-(-image[1] // self._shape[1]), -(-image[2] // self._shape[2]))
        self.trunk = nn.Sequential(
            nn.Conv2d(self._shape[0] + 1, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        inner = min(_WIDTH, 16)
        self.image = nn.Sequential(
            nn.Conv2d(_WIDTH, inner * factor**2, 3, padding=1),
            nn.PixelShuffle(factor),
            nn.ReLU(),
            nn.Conv2d(inner, image[0], 3, padding=1),
        )
        self.label = nn.Sequential(
            nn.Flatten(),
            nn.Linear(_WIDTH * self._shape[1] * self._shape[2], 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )

    def get_used_to(self, sent: Tensor) -> None:
        """Learn what is usual of what is sent (n, *features)."""
        direction, _ = self._parted(sent)
        self.mean = direction.mean(dim=0)
        spread = direction.std(dim=0)
        self.spread = spread + 1e-3 * spread.mean() + torch.finfo(sent.dtype).tiny

    def forward(self, sent: Tensor) -> Decoded:
        """For what was sent of some samples, (n, *features)."""
        direction, length = self._parted(sent)
        usual = ((direction - self.mean) / self.spread).clamp(-10, 10)
        planes = usual.view(-1, *self._shape)
        lengths = length.view(-1, 1, 1, 1).expand(-1, 1, *self._shape[1:])
        found = self.trunk(torch.cat([planes, lengths], dim=1))
        images: Tensor = self.image(found)
        if images.shape[2:] != self._size:
            images = functional.interpolate(
                images, self._size, mode="bilinear", align_corners=False
            )
        return Decoded(images, self.label(found))

    def _parted(self, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Directions (n, features) of length 1, and the logarithm of their lengths.

        Gradients are tiny and of all sizes: what they tell of an image is where they point."""
        flat = sent.flatten(1)
        length = flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(sent.dtype).tiny)
        return flat / length, length.log() / 10


def train_decoder(
    lessons: Sequence[Lesson],
    num_classes: int,
    *,
    steps: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Decoder:
    """A decoder that has learned from these lessons, in evaluation mode.

    Parameters
    ----------
    lessons: batches of the attacker's own, at least one.
    num_classes: that labels are of.
    steps: of Adam; each takes one lesson.
    seed: of its first parameters and of the order of lessons.
    progress: called after each step.
    """
    first = lessons[0]
    with torch_seeded(seed):
        decoder = Decoder(first.sent.shape[1:], first.images.shape[1:], num_classes)
        order = torch.randint(len(lessons), (steps,)).tolist()
    decoder.get_used_to(torch.cat([lesson.sent for lesson in lessons]))
    optimiser = torch.optim.Adam(decoder.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for number in order:
        lesson = lessons[number]
        found: Decoded = decoder(lesson.sent)
        loss = functional.mse_loss(found.images, lesson.images)
        loss = loss + _LABELS_IN_LOSS * functional.cross_entropy(found.labels, lesson.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        progress()
    return decoder.eval()
