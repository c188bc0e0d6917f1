"""Which client gets which images."""

from pathlib import Path

import numpy as np
import torch

from huscf_flwr.batches import LabelledImages
from huscf_flwr.data.sources import Domain, ImageFormat, domain_name, load_domain
from huscf_flwr.errors import UserError


def split_names(domains: str) -> list[str]:
    """The sources in the run key `domains`; raises `UserError` if there are none."""
    names = [name.strip() for name in domains.split(",") if name.strip()]
    if not names:
        raise UserError(f'domains="{domains}" names no domain')
    if len({domain_name(name) for name in names}) < len(names):
        raise UserError(f'domains="{domains}" names a domain twice: file names must differ')
    return names


def resolve_sources(domains: str, base_dir: str) -> list[str]:
    """The sources in the run key `domains`, with paths made absolute against `base_dir`."""
    return [
        str(Path(base_dir) / name) if name.endswith(".npz") else name
        for name in split_names(domains)
    ]


def client_data(
    sources: list[str], image_format: ImageFormat, *, client: int, clients: int, seed: int
) -> tuple[Domain, LabelledImages]:
    """The domain of a client, and its part of that domain's training images.

    Client i has domain i modulo the number of domains; the clients of a domain have equal random
    parts of it.

    Raises
    ------
    UserError: a domain that cannot be loaded, or fewer than 2 images for this client.
    """
    domain = load_domain(sources[client % len(sources)], image_format)
    order = np.random.default_rng(seed).permutation(len(domain.train))
    sharing = len(range(client % len(sources), clients, len(sources)))
    mine = np.array_split(order, sharing)[client // len(sources)]
    data = domain.train.select(torch.from_numpy(mine))
    check_size(data, f"client {client}")
    return domain, data


def check_size(data: LabelledImages, owner: str) -> None:
    """Raise `UserError` unless there are enough images to train on."""
    if len(data) < 2:
        raise UserError(
            f"{owner} has {len(data)} training images; at least 2 are needed: "
            "use fewer clients or more images"
        )
