"""`report.html`: one page that shows a run, and needs no other file and no network."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.evaluation.scores import REAL
from huscf_flwr.report import audit_tables, figures
from huscf_flwr.report.files import AUDIT, COSTS, OWN_AUDIT, TRAINING, RunFiles, read_run
from huscf_flwr.report.model_cards import write_cards
from huscf_flwr.report.page_samples import samples
from huscf_flwr.report.page_scores import Rows, beside_real, cards, confusions, score_rows
from huscf_flwr.report.rendering import render
from huscf_flwr.report.template import RUN, SCRIPT
from huscf_flwr.system.files import replacing

_REFRESH_S = 30  # after which the page of an unfinished run is read again
_SECTIONS = {
    "scores": "Scores",
    "training": "Training",
    "samples": "Samples",
    "clusters": "Clusters",
    "plan": "Plan",
    "data": "Data",
    "exposure": "What the server could see",
    "costs": "Time, memory, bytes",
    "repeat": "Repeating it",
    "config": "Config",
}
_FILES = {
    "generator-cluster-*.safetensors": "",
    "generator-cluster-*.md": "what the generator is, for those who get it",
    "config.toml": "the keys of the run",
    "metrics.csv": "numbers of each round",
    "clusters.csv": "the clients in each round",
    "summary.json": "scores and costs",
}


def write_page(folder: Path) -> Path:
    """Make `report.html` and the generators' cards from the files in a run's folder; its path.

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
        aside.write_text(render(RUN, content, SCRIPT), encoding="utf-8")
    write_cards(run)
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
        "refresh": None if run.summary else _REFRESH_S,
        "cards": list(cards(run)),
        "utility": any("utility" in scores for scores in scored.values()),
        "headline": _headline(run),
        "scores_head": ["", *scored],
        "scores": score_rows(
            {of: beside_real(scores, run.details()[of]) for of, scores in scored.items()}
        ),
        "details": score_rows(run.details()),
        "confusions": list(confusions(run)),
        "by_cut": [
            {"title": f"{name}, cluster {scored[name]['cluster']}", **_cut_table(cuts)}
            for name, cuts in run.by_cut().items()
        ],
        "score_curves": figures.curves(run, run.scores) if run.scores else None,
        "on_real": any(name.endswith(REAL) for row in run.metrics for name in row.values),
        "training": figures.curves(run, TRAINING),
        "samples": samples(run),
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
        "timeline": figures.image(timeline, _timeline_in_words(run.plan))
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
        "simulated": _simulated(run),
        "command": _command(run),
        "resumed": run.config.get("resume"),
        "files": {
            path.name: what
            for pattern, what in _FILES.items()
            for path in sorted(run.folder.glob(pattern))
        },
        "config": config,
        "changed": sum(
            value != default and key not in RunConfig().found for key, value, default in config
        ),
        "origin": [list(item) for item in run.origin.items()],
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
        # The summary's is of the last part of a run that went on from another.
        "duration": _duration(max(summary.get("seconds", 0.0), sum(_round_seconds(run)))),
        "bytes exchanged": _size(_exchanged(run)),
    }


def _cut_table(cuts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"head": ["", *cuts], "rows": score_rows(cuts)}


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


def _plan_rows(plan: Mapping[str, Any]) -> Rows:
    keys = ("profile", "clients", "gen_head", "gen_tail", "disc_head", "disc_tail")
    groups = plan.get("groups", [])
    times_s = plan.get("times_s", [[None] * 3] * len(groups))
    return [
        [*(group[key] for key in keys), *times]
        for group, times in zip(groups, times_s, strict=True)
    ]


def _latency_rows(run: RunFiles) -> Rows:
    latency = run.summary.get("latency", {})
    predicted = latency.get("predicted_s", run.plan.get("latency_s"))
    devices = latency.get("predicted_for", run.plan.get("devices"))
    what = f"predicted for {devices}" if devices else "predicted"
    rows = [[what, predicted], ["measured in this run", latency.get("measured_s")]]
    return [row for row in rows if row[1] is not None]


def _cost_rows(run: RunFiles) -> Rows:
    seconds, summary = _round_seconds(run), run.summary
    rows: Rows = [
        ["mean seconds of a round", sum(seconds) / len(seconds)],
        ["seconds of the shortest and the longest", f"{min(seconds):.4g} to {max(seconds):.4g}"],
        *(
            [f"of a round on devices, seconds: {what}", value]
            for what, value in (summary.get("round_seconds") or {}).items()
        ),
        ["client iterations per second", summary.get("iterations_per_second")],
        *(
            [f"peak memory of {'a client' if role == 'client' else f'the {role}'}", f"{size} MiB"]
            for role, size in summary.get("peak_memory_mb", {}).items()
        ),
    ]
    if "bytes_per_client_iteration" in summary:
        size = _size(summary["bytes_per_client_iteration"])
        rows.append(["sent and received by a client in an iteration", size])
    rows.append(["sent and received by all clients in all rounds", _size(_exchanged(run))])
    return [row for row in rows if row[1] is not None]


def _exchanged(run: RunFiles) -> float:
    """Bytes that all clients sent and received, in all rounds."""
    clients = Counter(member.round for member in run.members)
    of_client = {row.round: row.values.get(COSTS[0], 0.0) for row in run.metrics}
    return sum(1e6 * megabytes * clients[number] for number, megabytes in of_client.items())


def _simulated(run: RunFiles) -> bool:
    """Whether clients had data that was dealt to them."""
    return any(member.domain for member in run.members)


def _command(run: RunFiles) -> str:
    """What repeats the run."""
    file = shlex.quote(str(run.folder / "config.toml"))
    if not _simulated(run):
        return f"flwr run . kit --stream --run-config {file}"
    clients = run.summary.get("partitions") or len({member.client for member in run.members})
    given = "" if run.config.get("num-clients") else f" num-clients={clients}"
    return f"huscf train --config {file}{given} output-dir="


def _timeline_in_words(plan: Mapping[str, Any]) -> str:
    devices = ", ".join(f"{g['clients']} x {g['profile']}" for g in plan.get("groups", []))
    seconds = f", {plan['latency_s']:.3g} s in all" if "latency_s" in plan else ""
    return (
        "Timeline of one training iteration as planned: when each device and the server compute, "
        f"send and wait{seconds}; devices: {devices}"
    )


def _round_seconds(run: RunFiles) -> Sequence[float]:
    return list({row.round: row.values["seconds"] for row in run.metrics}.values())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _size(count: float) -> str:
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
