"""A picture of one iteration: who computes, who sends, and who waits for whom."""

from pathlib import Path

import numpy as np

from huscf_flwr.planning.plan import Plan

_MOST_LANES = 20
_COLOURS: dict[str, str] = {
    "generator forward": "#4477aa",
    "discriminator forward": "#228833",
    "discriminator backward": "#ee6677",
    "generator backward": "#aa3377",
}
_HEIGHTS = {"device": 0.8, "server": 0.8, "link": 0.3}


def draw_timeline(plan: Plan, path: Path | str) -> None:
    """Draw an iteration: a lane for each group of devices and one for the server.

    Where there are many groups, one of each cut is drawn: the one that is busy the longest.

    Raises
    ------
    OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    found = plan.schedule()
    lanes = _lanes(plan, found.device_s + found.link_s)
    figure = Figure(figsize=(12, 1.8 + 0.42 * (len(lanes) + 1)), layout="constrained")
    axes = figure.add_subplot()
    rows: dict[int | None, int] = {group: row for row, group in enumerate(lanes)}
    rows[None] = len(lanes)
    for where, height in _HEIGHTS.items():
        for phase, colour in _COLOURS.items():
            spans = [
                span
                for span in found.spans
                if span.where == where and span.phase == phase and span.group in rows
            ]
            axes.barh(
                [rows[span.group] for span in spans],
                [span.end_s - span.start_s for span in spans],
                left=[span.start_s for span in spans],
                height=height,
                color=colour,
                alpha=0.55 if where == "link" else 1.0,
            )
    axes.set_yticks(range(len(rows)), [*lanes.values(), "server"])
    axes.invert_yaxis()
    axes.set_xlim(0, found.seconds)
    axes.set_xlabel("seconds; thick: computing, thin: sending or receiving, blank: waiting")
    axes.set_title(f"One training iteration of {plan.cohort:g} clients: {found.seconds:.3g} s")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(
        handles=[Patch(color=colour, label=phase) for phase, colour in _COLOURS.items()],
        loc="outside lower center",
        ncols=len(_COLOURS),
        frameon=False,
    )
    figure.savefig(path, dpi=120)


def _lanes(plan: Plan, busy_s: np.ndarray) -> dict[int, str]:
    """Groups to draw, with their labels."""
    counts = [f"{clients:.0f} x" for clients in plan.fleet.clients]
    labels = {
        group: f"{count} {profile.name}, {cut}"
        for group, (count, profile, cut) in enumerate(
            zip(counts, plan.fleet.profiles, plan.cuts, strict=True)
        )
    }
    if len(labels) <= _MOST_LANES:
        return labels
    chosen = {}
    for cut in sorted(set(plan.cuts)):
        members = [group for group in labels if plan.cuts[group] == cut]
        busiest = max(members, key=lambda group: busy_s[group])
        chosen[busiest] = f"{len(members)} groups, {cut}: {plan.fleet.profiles[busiest].name}"
    return chosen
