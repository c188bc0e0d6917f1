"""`report.html`: one page that shows a run, and needs no other file, no network and no script."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.scores import REAL
from huscf_flwr.report import audit_tables, figures
from huscf_flwr.report.figures import Picture
from huscf_flwr.report.files import AUDIT, OWN_AUDIT, TRAINING, RunFiles, flat, read_run
from huscf_flwr.report.rendering import readable, render
from huscf_flwr.report.template import RUN
from huscf_flwr.system.files import replacing

_STRIP = 6  # rounds of which a cluster's grids are shown
_SECTIONS = {
    "scores": "Scores",
    "training": "Training",
    "samples": "Samples",
    "clusters": "Clusters",
    "plan": "Plan",
    "data": "Data",
    "exposure": "What the server could see",
    "costs": "Time, memory, bytes",
    "config": "Config",
}

_Rows = list[list[Any]]


def write_page(folder: Path) -> Path:
    """Make `report.html` from the files in a run's folder, and put it there; its path.

    Raises
    ------
    UserError: see `files.read_run`.
    OSError: the page cannot be written, or a picture not be read.
    """
    run = read_run(folder)
    with figures.style():
        content = _content(run)
    path = folder / "report.html"
    with replacing(path) as aside:
        aside.write_text(render(RUN, content), encoding="utf-8")
    return path


def _content(run: RunFiles) -> dict[str, Any]:
    """What the template shows, by the template's names."""
    scored = run.last_scores()
    defaults = RunConfig().as_dict()
    config = [[key, value, defaults.get(key)] for key, value in run.config.items()]
    timeline = run.folder / "timeline.png"
    return {
        "name": run.config.get("name") or run.folder.name,
        "about": _about(run),
        "sections": _SECTIONS,
        "headline": _headline(run),
        "scores_head": ["", *scored],
        "scores": _score_rows(
            {of: _beside_real(scores, run.details()[of]) for of, scores in scored.items()}
        ),
        "details": _score_rows(run.details()),
        "by_cut": [
            {"title": f"{name}, cluster {scored[name]['cluster']}", **_cut_table(cuts)}
            for name, cuts in run.by_cut().items()
        ],
        "score_curves": figures.curves(run, run.scores) if run.scores else None,
        "on_real": any(name.endswith(REAL) for row in run.metrics for name in row.values),
        "training": figures.curves(run, TRAINING),
        "pairs": list(_pairs(run)),
        "strips": dict(_strips(run)),
        "last": run.rounds[-1],
        "clusters": figures.clusters(run),
        "weights": figures.weights(run),
        "weights_over_rounds": figures.weights_over_rounds(run),
        "plan_search": run.plan.get("search"),
        "plan_devices": run.plan.get("devices"),
        "plan_head": [
            *("devices", "clients", "G head", "G tail", "D head", "D tail"),
            *("computing", "link", "server"),
        ],
        "plan": _plan_rows(run.plan),
        "cuts_head": ["blocks at G head, G tail, D head, D tail", "clients"],
        "cuts": [
            [cut, clients]
            for cut, clients in sorted(Counter(m.cut for m in run.last_members if m.cut).items())
        ],
        "latency_head": ["an iteration takes", "seconds"],
        "latency": _latency_rows(run),
        "timeline": figures.image(timeline, "Timeline of one training iteration as planned")
        if timeline.exists()
        else None,
        "data": figures.data(run),
        "promised": audit_tables.promise(run.summary.get("local_privacy")),
        "exposure": _exposure(run),
        "costs": _cost_rows(run),
        "exchanges": [
            [figures.title(name), _size(both["up"]), _size(both["down"])]
            for name, both in run.summary.get("bytes_per_exchange", {}).items()
        ],
        "config": config,
        "changed": sum(
            value != default and key not in RunConfig().found for key, value, default in config
        ),
        "versions": run.versions,
    }


def _about(run: RunFiles) -> str:
    state = "" if run.summary else "; it is going on, or ended early"
    return f"What a run left in {run.folder}{state}."


def _headline(run: RunFiles) -> dict[str, Any]:
    members, summary = run.last_members, run.summary
    ari = summary.get("adjusted_rand_index")
    return {
        "strategy": run.config.get("strategy"),
        "rounds": f"{run.rounds[-1]} of {run.config.get('num-server-rounds')}",
        "clients": len(members),
        "clusters": len({member.cluster for member in members}),
        "adjusted Rand index": "-" if ari is None else f"{ari:.2f}",
        "duration": _duration(summary["seconds"] if summary else sum(_round_seconds(run))),
    }


def _score_rows(scored: Mapping[str, Mapping[str, Any]]) -> _Rows:
    """A row for each score, whatever their names, and a column for each domain or cluster."""
    columns = [dict(flat(scores)) for scores in scored.values()]
    names = dict.fromkeys(name for scores in columns for name in scores)
    return [[figures.title(name), *(scores.get(name) for scores in columns)] for name in names]


def _cut_table(cuts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"head": ["", *cuts], "rows": _score_rows(cuts)}


def _beside_real(scores: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Scores, each with what real images get in parentheses where `details` have it."""

    def text(score: Any, real: Any) -> Any:
        if isinstance(score, Mapping):
            return {name: text(value, (real or {}).get(name)) for name, value in score.items()}
        return score if real is None else f"{readable(score)} ({readable(real)})"

    return {name: text(score, details.get(name, {}).get("real")) for name, score in scores.items()}


def _pairs(run: RunFiles) -> Iterator[dict[str, Any]]:
    """The last generated grid of each domain's main cluster, beside the domain's real images."""
    grids = run.grids()
    for name, rows in run.curves().items():
        last = rows[-1]
        real, generated = run.real_grid(last.domain), grids.get(last.cluster, {}).get(last.round)
        if not last.domain or real is None or generated is None:
            continue
        what = f"of cluster {last.cluster}, round {last.round}"
        yield {
            "title": f"Generated and real {name}",
            "generated": figures.image(generated, f"Generated images {what}", f"generated {what}"),
            "real": figures.image(real, f"Real {name}, held out", "real, held out"),
        }


def _strips(run: RunFiles) -> Iterator[tuple[str, list[Picture]]]:
    """Grids of a few rounds, the first and the last among them, for each cluster."""
    for cluster, grids in run.grids().items():
        rounds = list(grids)
        count = min(_STRIP, len(rounds))
        chosen = {rounds[round(i * (len(rounds) - 1) / max(1, count - 1))] for i in range(count)}
        yield (
            f"Cluster {cluster} over the rounds",
            [
                figures.image(
                    grids[number],
                    f"Generated images of cluster {cluster} after round {number}",
                    f"round {number}",
                )
                for number in sorted(chosen)
            ],
        )


def _exposure(run: RunFiles) -> dict[str, Any] | None:
    """What an audit found, or else clients' own did; None where there was neither."""
    audit = run.summary.get(AUDIT) or run.summary.get(OWN_AUDIT)
    if audit is None:
        return None
    seen: set[tuple[str, str]] = set()
    strips = []
    for number, client in audit["clients"].items():
        path = run.folder / AUDIT / f"client-{number}.png"
        kind = (client["domain"], client["cut"])
        if kind not in seen and path.exists():
            seen.add(kind)
            what = f"client {audit_tables.named(number, client)}, cut {client['cut']}"
            rows = "; ".join(["real", *client["attacks"]])
            strips.append(figures.image(path, f"Images of {what}: {rows}", f"{what}: {rows}"))
    return {
        "own": AUDIT not in run.summary,
        "after": audit["after_round"],
        "images": audit["images_of_a_client"],
        "not_audited": audit["not_audited"],
        "strips": strips,
        "tables": list(audit_tables.tables(audit)),
    }


def _plan_rows(plan: Mapping[str, Any]) -> _Rows:
    keys = ("profile", "clients", "gen_head", "gen_tail", "disc_head", "disc_tail")
    groups = plan.get("groups", [])
    times_s = plan.get("times_s", [[None] * 3] * len(groups))
    return [
        [*(group[key] for key in keys), *times]
        for group, times in zip(groups, times_s, strict=True)
    ]


def _latency_rows(run: RunFiles) -> _Rows:
    latency = run.summary.get("latency", {})
    predicted = latency.get("predicted_s", run.plan.get("latency_s"))
    devices = latency.get("predicted_for", run.plan.get("devices"))
    what = f"predicted for {devices}" if devices else "predicted"
    rows = [[what, predicted], ["measured in this run", latency.get("measured_s")]]
    return [row for row in rows if row[1] is not None]


def _cost_rows(run: RunFiles) -> _Rows:
    seconds, summary = _round_seconds(run), run.summary
    rows: _Rows = [
        ["mean seconds of a round", sum(seconds) / len(seconds)],
        ["seconds of the shortest and the longest", f"{min(seconds):.4g} to {max(seconds):.4g}"],
        ["client iterations per second", summary.get("iterations_per_second")],
        *(
            [f"peak memory of {'a client' if role == 'client' else f'the {role}'}", f"{size} MiB"]
            for role, size in summary.get("peak_memory_mb", {}).items()
        ),
    ]
    if "bytes_per_client_iteration" in summary:
        size = _size(summary["bytes_per_client_iteration"])
        rows.append(["sent and received by a client in an iteration", size])
    return [row for row in rows if row[1] is not None]


def _round_seconds(run: RunFiles) -> Sequence[float]:
    return list({row.round: row.values["seconds"] for row in run.metrics}.values())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _size(count: float) -> str:
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
