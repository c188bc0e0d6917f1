"""The pictures of the report page: charts drawn from a run's files, and images as they are.

Every picture is a data URI, so that the page needs no other file.
"""

import base64
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from huscf_flwr.evaluation.scores import REAL
from huscf_flwr.report.files import Measured, Member, RunFiles

# Paul Tol's schemes "bright" and "vibrant", which colour-blind readers can tell apart too.
_CLUSTERS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
_DOMAINS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377")
_MOST_NAMED = 40  # clients whose numbers fit on an axis
_MOST_CLASSES = 20  # classes that a legend has room for
_LEAST_SPAN = 0.1  # of a heat map's colours: less is no difference worth seeing
WIDTH = 10.0
"""Of a chart, in inches."""
_PANELS = 3  # in a row
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelpad": 6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.markersize": 4,
    "text.parse_math": False,  # a domain may have any name, dollar signs included
}


class Picture(NamedTuple):
    """A picture of the page: where it is, and what those who cannot see it read."""

    uri: str
    alt: str
    caption: str = ""


def image(path: Path, alt: str, caption: str = "") -> Picture:
    """A PNG file as it is."""
    return Picture(_uri("image/png", path.read_bytes()), alt, caption)


def sound(path: Path, alt: str) -> Picture:
    """A WAV file as it is."""
    return Picture(_uri("audio/wav", path.read_bytes()), alt)


def style() -> AbstractContextManager[None]:
    """Inside, charts look as they should."""
    return matplotlib.rc_context(_STYLE)


def curves(run: RunFiles, columns: Sequence[str]) -> Picture:
    """A panel for each of these columns of metrics.csv over the rounds, a line for each domain."""
    across = min(len(columns), _PANELS)
    down = -(-len(columns) // across)
    figure = Figure(figsize=(WIDTH, 0.4 + 2.6 * down))
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    lines = run.curves()
    for axes, column in itertools.zip_longest(panels, columns):
        if column is None:
            axes.remove()
            continue
        shown = _shown(lines, column)
        for (name, rows), colour in zip(shown.items(), itertools.cycle(_DOMAINS), strict=False):
            x, y = _points(rows, column)
            colour = colour if shown is lines else "0.3"
            axes.plot(x, y, marker="o", color=colour, label=name)
            axes.plot(*_points(rows, column + REAL), linestyle="--", color=colour, alpha=0.6)
        axes.set_title(title(column))
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(whole_numbers())
        if column == "seconds":
            axes.set_ylim(0, 1.1 * max(y))
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=min(len(lines), 8))
    last = "; ".join(f"{title(column)}: {_last(lines, column)}" for column in columns)
    return svg(figure, f"Line charts over the rounds, which end at {last}")


def clusters(run: RunFiles) -> Picture:
    """Which cluster each client is in, round after round."""
    colours = _colours({member.cluster for member in run.members})
    places = {cluster: place for place, cluster in enumerate(colours)}
    figure, _ = _over_rounds(
        run,
        lambda member: places[member.cluster],
        cmap=ListedColormap(list(colours.values())),
        norm=Normalize(-0.5, len(colours) - 0.5),
    )
    _cluster_legend(figure, colours)
    sizes = Counter(member.cluster for member in run.last_members)
    last = ", ".join(f"{size} in cluster {cluster}" for cluster, size in sorted(sizes.items()))
    return svg(figure, f"Heat map of the cluster {_of_clients(run)}; in the last {last}")


def weights_over_rounds(run: RunFiles) -> Picture:
    """Each client's weight in its cluster, compared with an equal share, round after round."""
    sizes = Counter((member.round, member.cluster) for member in run.members)

    def share(member: Member) -> float:
        return member.weight * sizes[member.round, member.cluster]

    span = max(_LEAST_SPAN, *(abs(share(member) - 1) for member in run.members))
    figure, drawn = _over_rounds(run, share, cmap="PuOr", norm=CenteredNorm(1, span))
    figure.colorbar(drawn, label="times an equal share", pad=0.02)
    shares = _span([share(member) for member in run.last_members])
    return svg(
        figure,
        f"Heat map of the weight in its cluster {_of_clients(run)}; in the last {shares} times an "
        "equal share",
    )


def weights(run: RunFiles) -> Picture:
    """Weight and divergence of each client in the last round, cluster after cluster."""
    members = sorted(run.last_members, key=lambda member: (member.cluster, member.client))
    colours = _colours({member.cluster for member in run.members})
    figure = Figure(figsize=(WIDTH, 3.2))
    panels = figure.subplots(1, 2)
    for axes, name, values in zip(
        panels,
        ("weight in its cluster", "divergence (KLD) from its cluster"),
        ([member.weight for member in members], [member.kld for member in members]),
        strict=True,
    ):
        for cluster in sorted({member.cluster for member in members}):
            inside = np.array([member.cluster == cluster for member in members])
            _bars(axes, np.where(inside, values, 0.0), color=colours[cluster])
        axes.set_title(name)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.02)
        _number_clients(axes, members, "x")
    used = {member.cluster for member in members}
    _cluster_legend(figure, {c: colour for c, colour in colours.items() if c in used})
    return svg(
        figure,
        f"Bar charts of {len(members)} clients in round {members[0].round}, coloured by cluster: "
        f"weights {_span([m.weight for m in members])}, "
        f"divergences {_span([m.kld for m in members])}",
    )


def data(run: RunFiles) -> Picture:
    """How many images each client has, of which classes."""
    members = run.last_members
    classes = max(len(member.labels) for member in members)
    names = dict(enumerate(run.class_names))
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.add_subplot()
    bottom = np.zeros(len(members))
    spectrum = matplotlib.colormaps["viridis"](np.linspace(0, 1, max(classes, 1)))
    for label in range(classes):
        counts = np.array([m.labels[label] if label < len(m.labels) else 0 for m in members])
        shown = names.get(label, str(label))
        _bars(axes, bottom + counts, bottom, color=spectrum[label], label=shown)
        bottom += counts
    unknown = np.array([0 if member.labels else member.size for member in members])
    _bars(axes, unknown, color="0.6")
    axes.set_ylabel("training images")
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.02)
    _name_clients(axes, members, "x")
    if 0 < classes <= _MOST_CLASSES:
        figure.legend(title="class", loc="outside right upper", reverse=True)
    kinds = f"stacked by {classes} classes" if classes else "of classes only they know"
    images = _span([member.size for member in members])
    return svg(
        figure, f"Bar chart of the training images of {len(members)} clients, {images}, {kinds}"
    )


def lower_is_better(score: str) -> bool:
    """Whether less of a score is better, by its name."""
    return score.endswith(("distance", "distance_classifier", "fpr"))


def title(column: str) -> str:
    """A column's or key's name for readers, with the better direction where its name tells."""
    name = column.replace("_", " ")
    if lower_is_better(column):
        return f"{name} (lower is better)"
    higher = column.endswith("score") or (column.startswith("prdc") and ":" not in column)
    return f"{name} (higher is better)" if higher else name


def _over_rounds(
    run: RunFiles, value: Callable[[Member], float], **style: Any
) -> tuple[Figure, AxesImage]:
    """A heat map: a row for each client, by domain; a column for each round."""
    newest = {member.client: member for member in run.members}
    members = sorted(newest.values(), key=lambda member: (member.domain, member.client))
    rows = {member.client: row for row, member in enumerate(members)}
    first, last = run.rounds[0], run.rounds[-1]
    cells = np.full((len(members), last - first + 1), np.nan)
    for member in run.members:
        cells[rows[member.client], member.round - first] = value(member)
    figure = Figure(figsize=(WIDTH, min(9.0, 1.4 + 0.26 * len(members))))
    axes = figure.add_subplot()
    drawn = axes.imshow(
        cells,
        aspect="auto",
        interpolation="nearest",
        extent=(first - 0.5, last + 0.5, len(members) - 0.5, -0.5),
        **style,
    )
    axes.grid(visible=False)
    axes.set_xlabel("round")
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(whole_numbers())
    _name_clients(axes, members, "y")
    return figure, drawn


def _of_clients(run: RunFiles) -> str:
    """Whose rows `_over_rounds` draws, in words."""
    clients = {member.client for member in run.members}
    domains = len({member.domain for member in run.members} - {""})
    order = f", sorted by {domains} true domains" if domains else ""
    return f"of {len(clients)} clients{order}, rounds {run.rounds[0]} to {run.rounds[-1]}"


def _shown(
    lines: Mapping[str, Sequence[Measured]], column: str
) -> Mapping[str, Sequence[Measured]]:
    """All domains of a round take the same time: one line says it."""
    return {"all": next(iter(lines.values()))} if column == "seconds" else lines


def _last(lines: Mapping[str, Sequence[Measured]], column: str) -> str:
    """The last values of a column, in words."""
    found = {name: _points(rows, column)[1] for name, rows in _shown(lines, column).items()}
    return ", ".join(f"{values[-1]:.4g} for {name}" for name, values in found.items() if values)


def _span(values: Sequence[float]) -> str:
    return f"from {min(values):.3g} to {max(values):.3g}"


def _points(rows: Sequence[Measured], column: str) -> tuple[list[int], list[float]]:
    known = [row for row in rows if column in row.values]
    return [row.round for row in known], [row.values[column] for row in known]


def _bars(axes: Axes, tops: np.ndarray, bottoms: Any = 0.0, **style: Any) -> None:
    """A bar for each client, as one artist: a thousand would take seconds."""
    edges = (np.arange(len(tops))[:, None] + [-0.4, 0.4]).ravel()
    bottoms = np.broadcast_to(bottoms, tops.shape)
    # A step for each client, and one without height between two of them.
    axes.stairs(_with_gaps(tops), edges, baseline=_with_gaps(bottoms), fill=True, **style)


def _with_gaps(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.zeros(len(values))], axis=1).ravel()[:-1]


def whole_numbers() -> MaxNLocator:
    """Ticks of an axis of rounds."""
    return MaxNLocator(integer=True, min_n_ticks=1)


def _colours(names: set[int]) -> dict[int, Any]:
    """A colour for each cluster, whatever their numbers."""
    if len(names) <= len(_CLUSTERS):
        return dict(zip(sorted(names), _CLUSTERS, strict=False))
    many = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names)))
    return dict(zip(sorted(names), many, strict=True))


def _cluster_legend(figure: Figure, colours: dict[int, Any]) -> None:
    figure.legend(
        handles=[Patch(color=colour, label=f"cluster {c}") for c, colour in colours.items()],
        loc="outside upper right",
        ncols=min(len(colours), 8),
    )


def _number_clients(axes: Axes, members: Sequence[Member], which: str) -> None:
    """Label the axis `which` with the clients' numbers, where there is room for them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    few = len(members) <= _MOST_NAMED
    axis.set_ticks(range(len(members)) if few else [])
    if few:
        axis.set_ticklabels([str(member.client) for member in members])
    axis.set_label_text("client" if few else f"{len(members)} clients")


def _name_clients(axes: Axes, members: Sequence[Member], which: str) -> None:
    """Label the axis with the clients' numbers, and the opposite one with their true domains."""
    _number_clients(axes, members, which)
    blocks = [(domain, places) for domain, places in _blocks(members) if domain]
    if not blocks:
        return
    line = axes.axvline if which == "x" else axes.axhline
    for _, places in blocks[1:]:
        line(places[0] - 0.5, color="black", linewidth=0.8)
    other = axes.secondary_xaxis("top") if which == "x" else axes.secondary_yaxis("right")
    axis = other.xaxis if which == "x" else other.yaxis
    axis.set_ticks([(places[0] + places[-1]) / 2 for _, places in blocks])
    axis.set_ticklabels([domain for domain, _ in blocks])
    axis.set_tick_params(length=0)
    other.spines[:].set_visible(False)


def _blocks(members: Sequence[Member]) -> Iterator[tuple[str, list[int]]]:
    """The places of each domain's clients, in sorted `members`."""
    places = range(len(members))
    for domain, found in itertools.groupby(places, key=lambda place: members[place].domain):
        yield domain, list(found)


def svg(figure: Figure, alt: str) -> Picture:
    """A chart."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return Picture(_uri("image/svg+xml", buffer.getvalue()), alt)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
