"""How often `clusters="auto"` is right: federations of all kinds, drawn at random.

    python -m simulations.clusters_found                     the grey built-in domains alone
    python -m simulations.clusters_found a.npz b.npz --federations 40

Each federation has one domain, or two to four, out of these and the files that are
named; 4 to 32 clients, of each domain two at least; and one of the partitions, `dirichlet` with an
alpha from 0.1 to 1, drawn evenly on a logarithmic scale. It is trained until the warm-up ends, for
about 25 iterations a round, and asked which clusters it found. Prints a line for each, and in the
end how many were right, by partition.
"""

import argparse
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from huscf_flwr.config import RunConfig
from huscf_flwr.data.partition import DIRICHLET, PARTITIONS, label_counts
from huscf_flwr.errors import UserError
from huscf_flwr.evaluation.recovery import cluster_recovery
from simulations.engine import Engine
from strategies.huscf import HuSCF

_DOMAINS = ("digits", "letters", "textures")
_CLIENTS = (4, 8, 16, 32)
_ITERATIONS = 25


class _Found(Exception):
    """Clusters have been found: that is all that is asked here."""


class WarmUp(HuSCF):
    """Ends when the first clusters have been found."""

    def record_round(self, server_round: int) -> None:
        if self.probed:
            raise _Found
        super().record_round(server_round)


def draw(number: int, domains: Sequence[str], *, several: bool) -> RunConfig:
    """Federation `number`; of one domain, or of `several`.

    Partitions take turns, so that each is as frequent.
    """
    random = np.random.default_rng((number, several))
    count = int(random.integers(2, min(4, len(domains)) + 1)) if several else 1
    chosen = random.choice(len(domains), size=count, replace=False)
    config = RunConfig(
        name=f"federation-{number}",
        strategy=f"{__name__}:{WarmUp.__name__}",
        seed=number,
        domains=",".join(domains[index] for index in chosen),
        partition=PARTITIONS[number % len(PARTITIONS)],
        dirichlet_alpha=round(float(10 ** random.uniform(-1, 0)), 3),
        num_clients=int(random.choice([n for n in _CLIENTS if n >= 2 * count])),
        max_client_images=300,
        num_server_rounds=RunConfig.warmup_rounds + 1,
    )
    sizes = label_counts(config.settled(".").data_settings("."), config.num_clients).sum(axis=1)
    batches = -(-int(sizes.max()) // config.batch_size)
    return replace(config, local_epochs=max(1, round(_ITERATIONS / batches)))


def found(config: RunConfig) -> float:
    """Adjusted Rand index of the clusters that are found against the true domains."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(replace(config, output_dir=str(Path(folder) / "run")), ".")
        with suppress(_Found):
            engine.run()
        clients = engine.strategy.roster.clients.values()
        assignment = engine.strategy.assignment
        assert isinstance(engine.strategy, WarmUp) and engine.strategy.probed == len(clients)
        return cluster_recovery(
            [info.domain for info in clients], [assignment[info.number] for info in clients]
        )


def main() -> None:
    """Draw federations and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", help=".npz files or folders, more domains")
    parser.add_argument("--federations", type=int, default=20, help="how many of each kind (20)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    domains = [*_DOMAINS, *options.files]
    for several in (False, True):
        right: dict[str, list[bool]] = defaultdict(list)
        for number in range(options.first, options.first + options.federations):
            try:
                config = draw(number, domains, several=several)
            except UserError as error:  # no draw of so unequal shares leaves everybody images
                print(f"{number}: {error}", flush=True)
                continue
            index = found(config)
            right[config.partition].append(index == 1.0)
            alpha = f" {config.dirichlet_alpha}" if config.partition == DIRICHLET else ""
            names = ", ".join(Path(name).stem for name in config.domains.split(","))
            print(
                f"{number}: {names}; {config.num_clients} clients, {config.partition}{alpha}: "
                f"{'right' if index == 1.0 else f'wrong, adjusted Rand index {index:.2f}'}",
                flush=True,
            )
        what = "two to four domains" if several else "one domain"
        every = [is_right for of_kind in right.values() for is_right in of_kind]
        kinds = ", ".join(f"{kind} {sum(of)} of {len(of)}" for kind, of in sorted(right.items()))
        print(f"{what}: {sum(every)} of {len(every)} right ({kinds})", flush=True)


if __name__ == "__main__":
    main()
