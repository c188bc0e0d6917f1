"""Where KLD weights can matter: clusters with a client that does not belong, or not quite.

    python -m simulations.weights
    python -m simulations.weights --beta 0,100 --seeds 5 --out weights.csv

Four clients with equal shares of the digits are one cluster; in place of the fourth there is one
of another kind. They train with several values of `kld-beta`. Divergences are means over channels;
their sum is the same as a beta so many times as large, at this width 32 times. Prints the utility
of the cluster's generator for each, against a validation part, to choose by, and against the test
part, and what either gains on the first beta with the same seed; and the weight of the fourth
client: means over the seeds, with their 95% intervals.
"""

import argparse
import csv
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import Domain, find_sources, load_domain
from huscf_flwr.evaluation.evaluator import Evaluator
from huscf_flwr.nets.generator import Generator
from simulations.engine import Engine
from simulations.results import with_interval
from strategies.huscf import HuSCF

FORMAT = ImageFormat(16, 1, 10)
TWO = (3, 7)
"""Labels of the client that has two."""
_ROUNDS, _IMAGES = 10, 10_000

Arrays = tuple[np.ndarray, np.ndarray]
Make = Callable[[list[Arrays], Arrays, np.random.Generator], list[Arrays]]
"""What the four clients have, out of equal shares of the digits and all letters."""


def _another_domain(
    shares: list[Arrays], letters: Arrays, random: np.random.Generator
) -> list[Arrays]:
    chosen = random.permutation(len(letters[1]))[: len(shares[3][1])]
    return [*shares[:3], (letters[0][chosen], letters[1][chosen])]


def _noise(shares: list[Arrays], letters: Arrays, random: np.random.Generator) -> list[Arrays]:
    images, labels = shares[3]
    return [*shares[:3], (random.integers(0, 256, images.shape).astype(np.uint8), labels)]


def _shuffled_labels(
    shares: list[Arrays], letters: Arrays, random: np.random.Generator
) -> list[Arrays]:
    images, labels = shares[3]
    return [*shares[:3], (images, random.permutation(labels))]


def _two_labels(
    shares: list[Arrays], letters: Arrays, random: np.random.Generator
) -> list[Arrays]:
    return [*shares[:3], _of_labels(shares[3], TWO)]


def _two_labels_of_its_own(
    shares: list[Arrays], letters: Arrays, random: np.random.Generator
) -> list[Arrays]:
    others = [label for label in range(FORMAT.num_classes) if label not in TWO]
    return [*(_of_labels(share, others) for share in shares[:3]), _of_labels(shares[3], TWO)]


def _of_labels(share: Arrays, labels: Sequence[int]) -> Arrays:
    held = np.isin(share[1], labels)
    return share[0][held], share[1][held]


FOURTH: dict[str, Make] = {
    "like the others": lambda shares, letters, random: shares,
    "another domain": _another_domain,
    "noise": _noise,
    "shuffled labels": _shuffled_labels,
    "two labels": _two_labels,
    "two labels of its own": _two_labels_of_its_own,
}


class Unscored(HuSCF):
    """Ends without scores of its own: generators are scored here."""

    def finish(self) -> None:
        """Nothing is written."""


def _domain(name: str, *, validation: bool) -> Domain:
    (source,) = find_sources(name, ".", data_root=".", download=False, validation=validation)
    return load_domain(source, FORMAT)


def _arrays(images: LabelledImages) -> Arrays:
    return images.images[:, 0].numpy(), images.labels.numpy()


def train(kind: str, beta: float, seed: int, folder: Path) -> tuple[Generator, float]:
    """The generator of a cluster with such a fourth client, and that client's last weight."""
    images, labels = _arrays(_domain("digits", validation=True).train)
    letters = _arrays(_domain("letters", validation=False).train)
    random = np.random.default_rng(seed)
    shares = np.array_split(random.permutation(len(labels)), 4)
    parts = FOURTH[kind]([(images[share], labels[share]) for share in shares], letters, random)
    for number, (own, of_own) in enumerate(parts):
        np.savez(folder / f"client-{number}.npz", images=own, labels=of_own)
    config = RunConfig(
        strategy=f"{__name__}:{Unscored.__name__}",
        seed=seed,
        domains=",".join(f"client-{number}.npz" for number in range(4)),
        num_clients=4,
        clusters="1",
        kld_beta=beta,
        num_server_rounds=_ROUNDS,
        local_epochs=7,
        evaluate_every=1000,
        output_dir="run",
    )
    engine = Engine(config, str(folder))
    engine.run()
    with (folder / "run" / "clusters.csv").open() as file:
        weight = float([row["weight"] for row in csv.DictReader(file)][-1])
    return Generator(engine.strategy.config.net_spec, engine.strategy.models[0]), weight


def scores(generator: Generator, seed: int) -> tuple[float, float]:
    """Utility against the validation and the test part of the digits."""
    found = []
    for validation in (True, False):
        domain = _domain("digits", validation=validation)
        utility = Evaluator(domain, FORMAT.num_classes, seed).full(generator, _IMAGES).utility
        assert utility is not None
        found.append(utility.metrics["accuracy"])
    return found[0], found[1]


def main() -> None:
    """Train all of them and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beta", default="0,1,32", help="of kld-beta (%(default)s)")
    parser.add_argument("--fourth", default=",".join(FOURTH), help="kinds of it (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--out", metavar="FILE", help="a line for each run, as CSV")
    options = parser.parse_args()
    kinds = options.fourth.split(",")
    if unknown := [kind for kind in kinds if kind not in FOURTH]:
        parser.error(f"--fourth {', '.join(unknown)}: there are {', '.join(FOURTH)}")
    logging.disable(logging.INFO)
    lines: list[list[str | float]] = []
    print("| fourth client | beta | validation | test | gain | gain, test | its weight |")
    print("|---|---|---|---|---|---|---|")
    for kind in kinds:
        first: np.ndarray | None = None
        for beta in map(float, options.beta.split(",")):
            runs = []
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    generator, weight = train(kind, beta, seed, Path(folder))
                runs.append((*scores(generator, seed), weight))
                lines.append([kind, beta, seed, *runs[-1]])
            of_beta = np.array(runs)  # (seeds, 3)
            first = of_beta if first is None else first
            validation, test, weights = of_beta.T
            cells = [validation, test, *(of_beta - first)[:, :2].T, weights]
            texts = " | ".join(with_interval(cell.tolist()) for cell in cells)
            print(f"| {kind} | {beta:g} | {texts} |", flush=True)
    if options.out:
        with Path(options.out).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["fourth", "beta", "seed", "validation", "test", "weight"])
            writer.writerows(lines)


if __name__ == "__main__":
    main()
