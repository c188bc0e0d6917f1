"""The charts of a comparison's page."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from huscf_flwr.report.figures import WIDTH, Picture, svg, title, whole_numbers
from huscf_flwr.report.files import COSTS, Measured
from simulations.results import Row, half_interval

# Paul Tol's scheme "muted", for up to nine methods.
METHODS = ("#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#aa4499", "#44aa99", "#999933",
            "#882255")  # fmt: skip
_MEGABYTES, _GFLOPS = COSTS
_AXES = {
    "round": "round",
    _GFLOPS: "GFLOP that a client has computed",
    _MEGABYTES: "MB that a client has sent and received",
}

Curves = Mapping[str, Sequence[Sequence[Measured]]]
"""By method, the lines of metrics.csv of one domain, of each seed."""


def bars(rows: Sequence[Row], scores: Sequence[str]) -> Picture:
    """A panel for each score and domain: a bar for each method, its interval, a dot a seed."""
    methods = list(dict.fromkeys(row.method for row in rows))
    domains = list(dict.fromkeys(row.domain for row in rows if row.domain))
    colours = _colours(methods)
    height = len(scores) * (0.7 + 0.28 * len(methods))
    figure = Figure(figsize=(WIDTH, height))
    panels = figure.subplots(len(scores), len(domains), squeeze=False, sharex="row", sharey=True)
    for (score, domain), axes in zip(itertools.product(scores, domains), panels.flat, strict=True):
        for place, method in enumerate(methods):
            found = [r for r in rows if (r.method, r.domain) == (method, domain)]
            values = list(found[0].values.get(score, {}).values()) if found else []
            if not values:
                continue
            interval = half_interval(values) if len(values) > 1 else None
            axes.barh(place, statistics.fmean(values), color=colours[method], alpha=0.75)
            axes.errorbar(statistics.fmean(values), place, xerr=interval, color="0.15", capsize=3)
            axes.plot(values, [place] * len(values), "o", color="0.15", markersize=2.5)
        axes.set_yticks(range(len(methods)), methods)
        axes.grid(visible=False, axis="y")
        axes.set_title(domain if score == scores[0] else "")
        if domain == domains[len(domains) // 2]:  # there is no room for more
            axes.set_xlabel(title(score))
    for axes in panels[:, 0]:  # now that all of a row is drawn
        axes.set_xlim(left=0)
    panels[0, 0].invert_yaxis()
    names = ", ".join(title(score) for score in scores)
    return svg(figure, f"Bar charts of {names} of {', '.join(methods)} for {', '.join(domains)}")


def curves(by_domain: Mapping[str, Curves], score: str) -> Picture | None:
    """A score over rounds, a client's operations and its bytes: means over seeds, and their range.

    None where no run has it more than once.
    """
    if not any(
        len(_points(rows, "round", score)[0]) > 1
        for of_domain in by_domain.values()
        for seeds in of_domain.values()
        for rows in seeds
    ):
        return None
    methods = list(dict.fromkeys(method for found in by_domain.values() for method in found))
    colours = _colours(methods)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.7 * len(by_domain)))
    panels = figure.subplots(len(by_domain), len(_AXES), squeeze=False, sharey="row")
    for (domain, of_domain), row in zip(by_domain.items(), panels, strict=True):
        for axes, (measure, label) in zip(row, _AXES.items(), strict=True):
            for method, seeds in of_domain.items():
                _draw(axes, seeds, measure, score, method, colours[method])
            axes.set_xlabel(label)
            axes.set_title(domain if measure == "round" else "", loc="left")
            if measure == "round":
                axes.xaxis.set_major_locator(whole_numbers())
            else:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
    handles = {
        name: handle
        for axes in panels.flat
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4)
    return svg(
        figure,
        f"Line charts of {title(score)} over rounds, operations and bytes of a client, of "
        f"{', '.join(methods)} for {', '.join(by_domain)}",
    )


def _draw(
    axes: Axes,
    seeds: Sequence[Sequence[Measured]],
    measure: str,
    score: str,
    method: str,
    colour: str,
) -> None:
    points = [_points(rows, measure, score) for rows in seeds]
    points = [(x, y) for x, y in points if x]
    if not points:
        return
    shortest = min(len(x) for x, _ in points)
    x = np.mean([x[:shortest] for x, _ in points], axis=0)
    y = np.array([y[:shortest] for _, y in points])
    axes.plot(x, y.mean(axis=0), marker="o", color=colour, label=method)
    axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _points(rows: Sequence[Measured], measure: str, score: str) -> tuple[list[float], list[float]]:
    """Of a run: where it was when it had a score, and the score."""
    x, y, spent = [], [], 0.0
    for row in rows:
        spent = row.round if measure == "round" else spent + row.values.get(measure, 0.0)
        if score in row.values:
            x.append(spent)
            y.append(row.values[score])
    return x, y


def _colours(methods: Sequence[str]) -> dict[str, str]:
    if len(methods) <= len(METHODS):
        return dict(zip(methods, METHODS, strict=False))
    many = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(methods)))
    return dict(zip(methods, map(matplotlib.colors.to_hex, many), strict=True))
