"""What one bad client, or several, do to the others: utility with them, and without.

    python -m simulations.attacks
    python -m simulations.attacks --attacks huge,scaled --bad 2 --seeds 1 domains=digits

The default data, in-process; any run key may be given. The last clients are bad, from the first
round on. For each attack and domain: the utility that the domain's main cluster reaches, and by
how much that is less than in the run of the same seed in which all are honest; means over the
seeds, with their 95% intervals; and how many clients were left out of the last round.
"""

import argparse
import csv
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common import Config, NDArrays, Scalar
from torch import Tensor

from huscf_flwr.clients.base import ClientImages
from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.errors import UserError
from huscf_flwr.keys import read_settings
from huscf_flwr.nets import State
from huscf_flwr.procedure import ClientTraining, Steps
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.tensors import LARGEST
from simulations.engine import DEFAULT_CLIENTS, Engine
from simulations.results import with_interval
from strategies.huscf import HuSCF

ROUNDS = 10
_GRADIENTS = (Exchange.DISCRIMINATOR_STEP, Exchange.JUDGE_GRADIENT, Exchange.GENERATOR_STEP)

Spoil = Callable[[Tensor, Exchange], Tensor]


def _constant(sent: Tensor, exchange: Exchange) -> Tensor:
    return torch.full_like(sent, float(sent.abs().mean()))


def _huge(sent: Tensor, exchange: Exchange) -> Tensor:
    return torch.full_like(sent, LARGEST)


def _flipped(sent: Tensor, exchange: Exchange) -> Tensor:
    return -sent if exchange in _GRADIENTS else sent


def _flipped_last(sent: Tensor, exchange: Exchange) -> Tensor:
    return -3 * sent if exchange == Exchange.GENERATOR_STEP else sent


def _scaled(sent: Tensor, exchange: Exchange) -> Tensor:
    return (100 * sent).clamp(-LARGEST, LARGEST) if exchange in _GRADIENTS else sent


SPOILT_FRAMES: dict[str, Spoil] = {
    "constant": _constant,
    "huge": _huge,
    "flipped": _flipped,
    "flipped generator's": _flipped_last,
    "scaled": _scaled,
}
"""Attacks on what is sent in every iteration: activations and gradients, or gradients alone."""

ATTACKS = (
    *SPOILT_FRAMES,
    "noise images",
    "shuffled labels",
    "free-riding",
    "huge parameters",
    "lying size",
)


class Spoiling(HeadsAndTails):
    """Computes as it should, and sends something else."""

    spoil: Spoil

    def iteration(self, batch: Any) -> Steps:
        steps = super().iteration(batch)
        request, number = next(steps), 0
        while True:
            spoilt = {n: self.spoil(t.detach(), Exchange(number)) for n, t in request.items()}
            answer, number = (yield spoilt), number + 1
            try:
                request = steps.send(answer)
            except StopIteration as done:
                return done.value


class BadClient(SplitGANClient):
    """Bad, as the name of an attack says, if it is among the last."""

    attack, bad = "", 0

    def get_properties(self, config: Config) -> dict[str, Scalar]:
        found = super().get_properties(config)
        return {**found, "size": 10**9} if self._does("lying size") else found

    def half(self, state: State, config: Config) -> HeadsAndTails:
        half = super().half(state, config)
        if self._is_bad and self.attack in SPOILT_FRAMES:
            half.__class__ = Spoiling
            half.spoil = SPOILT_FRAMES[self.attack]  # type: ignore[attr-defined]
        return half

    def begin(self, parameters: NDArrays, config: Config) -> ClientTraining:
        self._given = parameters
        return super().begin(parameters, config)

    def finish(
        self, part: ClientTraining, config: Config
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        arrays, size, metrics = super().finish(part, config)
        if self._does("free-riding"):
            arrays = self._given
        if self._does("huge parameters"):
            arrays = [np.full_like(a, LARGEST) if a.dtype == np.float32 else a for a in arrays]
        return arrays, size, metrics

    def _data(self, config: Config) -> ClientImages:
        found = super()._data(config)
        random = torch.Generator().manual_seed(self.config.seed)
        images, labels = found.train.images, found.train.labels
        if self._does("noise images"):
            noise = torch.randint(0, 256, images.shape, generator=random).to(images.dtype)
            return replace(found, train=LabelledImages(noise, labels))
        if self._does("shuffled labels"):
            order = torch.randperm(len(labels), generator=random)
            return replace(found, train=LabelledImages(images, labels[order]))
        return found

    @property
    def _is_bad(self) -> bool:
        node = self.context.node_config
        return int(node["partition-id"]) >= int(node["num-partitions"]) - self.bad

    def _does(self, attack: str) -> bool:
        return self._is_bad and self.attack == attack


class WithBadClients(HuSCF):
    """HuSCF with such clients."""

    client_class = BadClient


def utilities(attack: str, bad: int, config: RunConfig) -> tuple[dict[str, float], int]:
    """Utility by domain, and how many clients were left out of the last round.

    Raises
    ------
    UserError: the run ended early.
    """
    BadClient.attack, BadClient.bad = attack, bad
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(replace(config, output_dir=f"{folder}/run"), str(Path.cwd()))
        run = engine.run()
        summary = json.loads((run / "summary.json").read_text())
        with (run / "clusters.csv").open() as file:
            rounds = [row["round"] for row in csv.DictReader(file)]
    clients = config.num_clients or DEFAULT_CLIENTS
    found = {d: scores["utility"]["accuracy"] for d, scores in summary["domains"].items()}
    return found, clients - rounds.count(rounds[-1])


def main() -> None:
    """Train all of them and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--attacks", default=",".join(ATTACKS), help="of these (%(default)s)")
    add("--bad", default="1,2", help="how many clients are bad (%(default)s)")
    add("--seeds", type=int, default=3, help="how many (3)")
    add("--out", metavar="FILE", help="a line for each run and domain, as CSV")
    add("settings", nargs="*", metavar="key=value", help="keys of the runs")
    options = parser.parse_args()
    attacks = options.attacks.split(",")
    if unknown := [name for name in attacks if name not in ATTACKS]:
        parser.error(f"--attacks {', '.join(unknown)}: there are {', '.join(ATTACKS)}")
    defaults = [f"strategy={__name__}:{WithBadClients.__name__}", f"num-server-rounds={ROUNDS}",
                "evaluate-every=1000", "devices=paper", "utility-images=10000"]  # fmt: skip
    logging.disable(logging.WARNING)
    config = RunConfig.from_mapping(read_settings(None, [*defaults, *options.settings]))
    seeds = [replace(config, seed=config.seed + n) for n in range(options.seeds)]
    lines: list[list[str | int | float]] = []
    honest = [utilities("", 0, run)[0] for run in seeds]
    print("| attack | bad clients | domain | utility | less than honest | left out |")
    print("|---|---|---|---|---|---|")
    for domain in honest[0]:
        print(
            f"| none | 0 | {domain} | {with_interval([found[domain] for found in honest])} | | |"
        )
    for attack in attacks:
        for bad in map(int, options.bad.split(",")):
            try:
                found = [utilities(attack, bad, run) for run in seeds]
            except UserError as error:
                print(f"| {attack} | {bad} | | the run ended: {error} | | |", flush=True)
                continue
            for domain in honest[0]:
                values = [utility[domain] for utility, _ in found]
                lost = [own[domain] - value for own, value in zip(honest, values, strict=True)]
                out = [count for _, count in found]
                lines += [[attack, bad, domain, *line] for line in zip(values, lost, out)]  # noqa: B905
                cells = f"{with_interval(values)} | {with_interval(lost)} | {np.mean(out):.1f}"
                print(f"| {attack} | {bad} | {domain} | {cells} |", flush=True)
    if options.out:
        with Path(options.out).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["attack", "bad", "domain", "utility", "lost", "left_out"])
            writer.writerows(lines)


if __name__ == "__main__":
    main()
