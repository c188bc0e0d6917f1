"""What noise buys, and what it costs: leakage against utility, of runs that were audited.

    python -m simulations.frontier FOLDER... --plot frontier.png

Each FOLDER is that of a finished run, or holds such folders, as a comparison's does. Those that
were not audited are first. Runs that differ in their seed alone are taken together: means, with
half the 95% interval of several. Leakage of images is how much more alike than the mean image of
its class the best attack makes them, in structural similarity, of labels which share is read; both
are means over clients. Utility is the mean over domains.
"""

import argparse
import itertools
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.privacy.exposure import NOTHING
from huscf_flwr.report.files import AUDIT, RunFiles, read_run
from simulations.audit import audit_run
from simulations.comparison_figures import METHODS
from simulations.results import half_interval, mean_and_interval

_MAY_DIFFER = ("name", "seed", "output-dir", "image-noise", "label-epsilon")


@dataclass(frozen=True)
class Point:
    """A setting of noise, and what came of it in each run: one value a run.

    Attributes
    ----------
    image_noise, label_epsilon: as in the run config.
    utility: accuracy.
    images, labels: leakage, see above.
    """

    image_noise: float
    label_epsilon: float
    utility: Sequence[float]
    images: Sequence[float]
    labels: Sequence[float]

    @property
    def name(self) -> str:
        """How a picture calls it."""
        parts = [f"noise {self.image_noise:g}"] if self.image_noise else []
        parts += [f"label epsilon {self.label_epsilon:g}"] if self.label_epsilon else []
        return ", ".join(parts) or "no noise"


def points(runs: Iterable[RunFiles]) -> list[Point]:
    """Those of audited runs, from the least noise to the most.

    Raises
    ------
    UserError: runs differ in more than noise and seed, or exchange no activations.
    """
    found: dict[tuple[float, float], list[RunFiles]] = {}
    others: Mapping[str, object] = {}
    for run in runs:
        config = RunConfig.from_mapping(run.config)
        found.setdefault((config.label_epsilon, config.image_noise), []).append(run)
        other = {key: value for key, value in config.as_dict().items() if key not in _MAY_DIFFER}
        if others and other != others:
            differs = ", ".join(key for key in other if other[key] != others[key])
            raise UserError(f"{run.folder}: differs from other runs in {differs}, too")
        others = other
        if not run.summary[AUDIT]["clients"]:
            raise UserError(f"{run.folder}: its clients send no activations")
    return [
        Point(
            image_noise,
            label_epsilon,
            [_utility(run) for run in same],
            *zip(*(_leakage(run) for run in same), strict=True),
        )
        for (label_epsilon, image_noise), same in sorted(found.items())
    ]


def _utility(run: RunFiles) -> float:
    """Of the main cluster of each domain."""
    scores = run.summary["domains"].values()
    return statistics.fmean(float(score["utility"]["accuracy"]) for score in scores)


def _leakage(run: RunFiles) -> tuple[float, float]:
    """Of images and of labels."""
    images, labels = [], []
    for client in run.summary[AUDIT]["clients"].values():
        attacks = client["attacks"].values()
        mean_image = client["without_attack"]["mean image of the class"]["ssim"]
        images.append(max(attack["ssim"] for attack in attacks) - mean_image)
        labels.append(max(attack["labels"] or 0.0 for attack in attacks))
    return statistics.fmean(images), statistics.fmean(labels)


def table(found: Iterable[Point]) -> str:
    """As Markdown."""
    lines = [
        "| image-noise | label-epsilon | utility | similarity beyond the class | labels read |",
        "|---|---|---|---|---|",
    ]
    for point in found:
        epsilon = f"{point.label_epsilon:g}" if point.label_epsilon else "-"
        values = map(mean_and_interval, (point.utility, point.images, point.labels))
        lines.append(f"| {' | '.join((f'{point.image_noise:g}', epsilon, *values))} |")
    return "\n".join(lines)


def plot(found: Sequence[Point], path: Path, chance: float) -> None:
    """Draw utility against both leakages, what is nearly hidden in grey; raises OSError.

    `chance` is that of a label.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    hidden = {"images": NOTHING, "labels": 1.5 * chance}
    titles = {
        "images": "images: structural similarity beyond the class's mean image",
        "labels": "labels: share that is read",
    }
    for (what, label), axes in zip(titles.items(), panels, strict=True):
        axes.axvspan(-1, hidden[what], color="0.92", zorder=0)
        for point, colour in zip(found, itertools.cycle(METHODS), strict=False):
            x: Sequence[float] = getattr(point, what)
            several = len(x) > 1
            axes.errorbar(
                statistics.fmean(x),
                statistics.fmean(point.utility),
                xerr=half_interval(x) if several else None,
                yerr=half_interval(point.utility) if several else None,
                fmt="s" if point.label_epsilon else "o",
                color=colour,
                label=point.name,
            )
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_xlim(left=-0.02)
    panels[1].set_xlim(0, 1.05)
    panels[0].set_ylim(max(0.0, min(min(p.utility) for p in found) - 0.1), 1)
    panels[0].set_ylabel("utility")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Audit what is not, print the table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run, or of runs")
    parser.add_argument("--plot", metavar="FILE", help="a picture, too")
    options = parser.parse_args()
    summaries = [p for f in options.folders for p in sorted(Path(f).glob("**/summary.json"))]
    if not summaries:
        raise UserError(f"{', '.join(options.folders)}: no finished run in there")
    for path in summaries:
        if AUDIT not in read_run(path.parent).summary:
            audit_run(path.parent.resolve(), os.getcwd())
    runs = [read_run(path.parent) for path in summaries]
    found = points(runs)
    print(table(found))
    if options.plot:
        plot(found, Path(options.plot), 1 / int(runs[0].config["num-classes"]))


if __name__ == "__main__":
    main()
