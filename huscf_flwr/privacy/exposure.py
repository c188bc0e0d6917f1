"""What attacks found of a client, beside what they would have found without it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from huscf_flwr.privacy.similarity import psnr, ssim

PLAIN, RECOGNISABLE, BLURRED, HIDDEN = "plain", "recognisable", "blurred", "hidden"
"""How well a client's images can be seen by whoever gets what it sends."""

_SAME = 0.9  # structural similarity of images that nobody takes for different ones
NOTHING = 0.05  # of what is no more alike than the mean image of a class
_MORE_THAN_CLASS = 0.2  # of what is an image of its own, and not just any of its class


@dataclass(frozen=True)
class Found:
    """What an attack made of a batch: means over its images; None where it says nothing of that.

    Attributes
    ----------
    ssim, psnr: of its images to the real ones, see `similarity`; psnr in dB.
    labels: share of the labels that are right.
    """

    ssim: float | None
    psnr: float | None
    labels: float | None

    @staticmethod
    def of(
        images: Tensor | None, labels: Tensor | None, real: Tensor, true_labels: Tensor
    ) -> "Found":
        """Of images (B, C, H, W) and labels (B,), against the real and true ones."""
        return Found(
            None if images is None else float(ssim(images, real).mean()),
            None if images is None else float(psnr(images, real).mean()),
            None if labels is None else float((labels == true_labels).float().mean()),
        )

    def __str__(self) -> str:
        parts = [] if self.ssim is None else [f"similarity {self.ssim:.2f}"]
        if self.labels is not None:
            parts.append(f"{100 * self.labels:.0f}% of labels")
        return ", ".join(parts)


@dataclass(frozen=True)
class Exposure:
    """What the server could see of one client, in one batch of its images.

    Attributes
    ----------
    client, domain, cut: who it is.
    attacks: what each found, by its name.
    mean_image, another: what the mean image of the right class would be, and another image of
        it, out of images that are nobody's.
    chance: of a label, by guessing.
    most_common: share of the client's most common class, where that is known.
    to_generate: share of the labels to generate that are read off the generator's head; None if
        it embeds none.
    """

    client: int
    domain: str
    cut: str
    attacks: Mapping[str, Found]
    mean_image: Found
    another: Found
    chance: float
    most_common: float | None
    to_generate: float | None

    @property
    def word(self) -> str:
        """One that a person understands, of the client's images.

        Plain: nobody would see a difference. Hidden: no more alike than the mean image of the
        class. Recognisable: far more alike than another image of the class. Blurred: in between.
        """
        best = max(found.ssim for found in self.attacks.values() if found.ssim is not None)
        assert self.mean_image.ssim is not None and self.another.ssim is not None
        if best >= _SAME:
            return PLAIN
        if best <= self.mean_image.ssim + NOTHING:
            return HIDDEN
        return RECOGNISABLE if best >= self.another.ssim + _MORE_THAN_CLASS else BLURRED

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "domain": self.domain,
            "cut": self.cut,
            "images": self.word,
            "attacks": {name: asdict(attack) for name, attack in self.attacks.items()},
            "without_attack": {
                "mean image of the class": asdict(self.mean_image),
                "another image of the class": asdict(self.another),
                "label by chance": self.chance,
                "share of the most common label": self.most_common,
            },
            "labels_to_generate": self.to_generate,
        }
