"""The run config: the keys of a run, checked together, and what follows from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from huscf_flwr.data.format import ImageFormat, SoundFormat
from huscf_flwr.data.local_noise import LocalNoise, check_levels
from huscf_flwr.data.partition import DataSettings
from huscf_flwr.data.sources import Source, find_sources, kind_of, split_names
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.recipes import RECIPES, Recipe
from huscf_flwr.keys import Value, check, check_address, check_bind, name_of, values_of
from huscf_flwr.nets.blocks import NetSpec
from huscf_flwr.privacy.similarity import SMALLEST
from huscf_flwr.run_keys import RunKeys
from huscf_flwr.wire.codings import CODINGS, Coding


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunKeys):
    """Everything a run can be told: see `RunKeys`."""

    def __post_init__(self) -> None:
        for one in fields(self):
            check(one, getattr(self, one.name))
        split_names(self.domains)
        check_bind("runner-bind", self.runner_bind, "runner-address", self.runner_address)
        for address in self.runner_addresses:
            check_address("runners", address)
        if self.runners and not self.runner_kit:
            raise UserError(f'runners="{self.runners}": runner-kit must say which kit they have')
        check_levels(self.image_noise, self.label_epsilon)
        if self.audit_every and self.local_noise is not None:
            raise UserError(
                f"audit-every={self.audit_every}: with image-noise or label-epsilon clients do "
                "not audit, as what they find would be of images without noise; huscf audit does"
            )
        if self.audit_every and self.image_size < SMALLEST:
            raise UserError(
                f"audit-every={self.audit_every}: needs images of {SMALLEST} pixels or more"
            )
        late, whole = self.straggler_timeout, self.round_timeout
        if late >= whole:
            raise UserError(f"straggler-timeout={late:g} must be below round-timeout={whole:g}")

    @property
    def cohort_size(self) -> int | None:
        """Clients that share an iteration at most; None: all of the round."""
        return None if self.cohort == "all" else int(self.cohort)

    def taking_part(self, clients: int) -> int:
        """How many of so many clients take part in a round."""
        return max(1, round(self.fraction_fit * clients))

    @property
    def coding(self) -> Coding:
        """How frames are written."""
        return CODINGS[self.wire]

    @property
    def runner_addresses(self) -> list[str]:
        """`host:port` of each runner elsewhere."""
        return [address.strip() for address in self.runners.split(",") if address.strip()]

    @property
    def on_validation(self) -> bool:
        """Whether scores are of a validation part, and test images are not touched."""
        return self.score_on == "validation"

    def sources(self, base_dir: str) -> tuple[Source, ...]:
        """The domains; relative paths start from `base_dir`."""
        return find_sources(
            self.domains,
            base_dir,
            data_root=self.data_root,
            download=self.download,
            validation=self.on_validation,
        )

    def settled(self, base_dir: str) -> "RunConfig":
        """With the format of the domains' images, where the keys leave it to them.

        Raises
        ------
        UserError: the domains would have to be looked at, and cannot be read.
        """
        if self.num_classes and self.channels:
            return self
        kinds = [kind_of(source) for source in self.sources(base_dir)]
        return self.told(
            {
                "num-classes": max(1, *(len(kind.classes) for kind in kinds)),
                "channels": max(kind.channels for kind in kinds),
            }
        )

    def told(self, settled: Mapping[str, Any]) -> "RunConfig":
        """With what a run has `settled`, by key, where the keys leave it to the data."""
        return replace(
            self,
            num_classes=self.num_classes or settled["num-classes"],
            channels=self.channels or settled["channels"],
        )

    @property
    def found(self) -> dict[str, int]:
        """What `settled` found, for those who have to be `told`, by key."""
        return {"num-classes": self.num_classes, "channels": self.channels}

    @property
    def net_spec(self) -> NetSpec:
        """What the nets are built for."""
        images = self.image_format
        return NetSpec(
            net=self.net,
            image_size=images.size,
            channels=images.channels,
            num_classes=images.num_classes,
            width=self.width,
            precision=self.precision,
            loss=self.loss,
        )

    @property
    def local_noise(self) -> LocalNoise | None:
        """What clients add to their data; None for nothing."""
        found = LocalNoise(self.image_noise, self.label_epsilon, self.num_classes)
        return found if found.on else None

    @property
    def image_format(self) -> ImageFormat:
        """What the images look like; raises `UserError` where that is not `settled`."""
        if not (self.num_classes and self.channels):
            raise UserError("num-classes and channels: neither set nor told by the server")
        return ImageFormat(self.image_size, self.channels, self.num_classes, self.sound)

    @property
    def sound(self) -> SoundFormat | None:
        """What recordings are taken to be; None for images."""
        return SoundFormat(self.sound_rate, self.sound_seconds) if self.sound_seconds else None

    def data_settings(self, base_dir: str) -> DataSettings:
        """What is dealt to the clients; relative paths start from `base_dir`."""
        return DataSettings(
            self.sources(base_dir),
            self.image_format,
            self.partition,
            self.dirichlet_alpha,
            self.seed,
            self.max_client_images,
        )

    @property
    def recipe(self) -> Recipe:
        """How generators are scored."""
        return RECIPES[self.scoring]

    def scores_due(self, round_: int) -> bool:
        """Whether generators are scored after this round, from 1."""
        return round_ == self.num_server_rounds or round_ % self.evaluate_every == 0

    def audit_due(self, round_: int) -> bool:
        """Whether clients look at what they send in this round, from 1."""
        return self.audit_every > 0 and round_ % self.audit_every == 0

    def as_dict(self) -> dict[str, Value]:
        """The config by key."""
        return {name_of(name): value for name, value in asdict(self).items()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A config from values by key; keys that are absent take their default.

        Raises
        ------
        UserError: an unknown key, or a value of the wrong type or outside what is allowed.
        """
        found: dict[str, Any] = values_of(fields(cls), values)
        return cls(**found)
