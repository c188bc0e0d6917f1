"""A card beside every generator that a run saved: what it makes, how well, and how to load it.

In Markdown, with the parts that Mitchell et al. ask for in "Model Cards for Model Reporting"
(2019), as far as a run knows them.
"""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from huscf_flwr.report.files import Member, RunFiles, flat
from huscf_flwr.report.rendering import readable
from huscf_flwr.system.files import replacing

Scored: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Scores by name, and how they were computed."""

_MARKS = r"\`*_{}[]()#|!~"  # of Markdown


def write_cards(run: RunFiles) -> None:
    """Write `generator-cluster-Y.md` for each generator of a run.

    Raises
    ------
    OSError: one cannot be written.
    """
    newest = {member.client: member for member in run.members}  # as not all are in every round
    members: dict[int, list[Member]] = {}
    for member in newest.values():
        members.setdefault(member.cluster, []).append(member)
    grids, details = run.grids(), run.details()
    scores: dict[int, dict[str, Scored]] = {}
    for of, found in run.last_scores().items():
        scores.setdefault(_cluster_of(of, found), {})[of] = found, details[of]
    for file in run.folder.glob("generator-cluster-*.safetensors"):
        cluster = int(file.stem.rpartition("-")[2])
        of_rounds = grids.get(cluster, {})
        grid = of_rounds[max(of_rounds)] if of_rounds else None
        card = _card(run, file, grid, members.get(cluster, []), scores.get(cluster, {}))
        with replacing(file.with_suffix(".md")) as aside:
            aside.write_text("\n".join(card) + "\n", encoding="utf-8")


def _card(
    run: RunFiles,
    file: Path,
    grid: Path | None,
    members: Sequence[Member],
    scores: Mapping[str, Scored],
) -> Iterator[str]:
    domains = sorted({member.domain for member in members} - {""})
    config = run.config
    yield f"# Generator of {_listed(domains) or file.stem.removeprefix('generator-')}"
    yield ""
    if grid is not None:
        place = grid.relative_to(run.folder).as_posix()
        yield f"![Generated images, a column for each class]({place})"
        yield ""
    yield from _what(run, domains)
    yield ""
    yield "## Loading it"
    yield ""
    net = config.get("net", "")
    own = f', net="{net}"' if ":" in net else ""
    yield "```python"
    yield "import huscf_flwr"
    yield ""
    yield f'generator = huscf_flwr.load_generator("{file.name}"{own})'
    yield "images, labels = generator.sample(100)  # images from -1 to 1"
    yield "```"
    yield ""
    yield "## What it was trained on"
    yield ""
    yield from _data(run, members)
    yield ""
    yield "## How good it is"
    yield ""
    yield from _scores(scores)
    yield ""
    yield "## What left the devices"
    yield ""
    yield from _crossed(run)


def _what(run: RunFiles, domains: list[str]) -> Iterator[str]:
    config = run.config
    size = config.get("image-size")
    kind = "colour" if config.get("channels") == 3 else "grey"
    what = f"images of {size} x {size} pixels, {kind}"
    if seconds := config.get("sound-seconds"):
        what = (
            f"spectrograms of {size} bands and as many moments: recordings of {seconds:g} s at "
            f"{config.get('sound-rate')} samples a second"
        )
    yield (
        f"Makes {what}, of {config.get('num-classes')} classes. The net is `{config.get('net')}`, "
        f"width {config.get('width')}; trained by `{config.get('strategy')}` in "
        f"{run.rounds[-1]} rounds."
    )
    for domain in domains:
        if names := run.classes.get(domain):
            yield ""
            yield f"Labels of {_plain(domain)}, from 0: {_listed(names)}."


def _data(run: RunFiles, members: Sequence[Member]) -> Iterator[str]:
    yield "| domain | clients | training images |"
    yield "|---|---|---|"
    for domain in sorted({member.domain for member in members}):
        sizes = [member.size for member in members if member.domain == domain]
        yield f"| {_plain(domain) or 'their own'} | {len(sizes)} | {sum(sizes)} |"
    yield ""
    yield f"Partition: {run.config.get('partition')}; seed {run.config.get('seed')}."


def _scores(found: Mapping[str, Scored]) -> Iterator[str]:
    if not found:
        yield "Not scored yet."
        return
    for of, (scores, details) in found.items():
        yield f"Against held-out {_plain(of)}:"
        yield ""
        yield "| score | generated | real images |"
        yield "|---|---|---|"
        for name, value in flat(scores):
            if name not in ("cluster", "clients"):
                yield f"| {name.replace('_', ' ')} | {readable(value)} | {_real(name, details)} |"
        yield ""
    yield "Real images: what they get in place of generated ones, which is what one can hope for."


def _plain(text: str) -> str:
    """Names are anybody's: none of Markdown or HTML, and one line."""
    line = "".join(f"\\{c}" if c in _MARKS else c for c in " ".join(text.split()))
    return html.escape(line, quote=False)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_plain, names))


def _cluster_of(of: str, scores: Mapping[str, Any]) -> int:
    """Of a name in `last_scores`, and what is there."""
    return int(scores["cluster"] if "cluster" in scores else of.removeprefix("cluster "))


def _real(name: str, details: Mapping[str, Any]) -> str:
    of, _, part = name.partition(": ")
    real = details.get(of, {}).get("real")
    return readable(real.get(part) if isinstance(real, Mapping) else real)


def _crossed(run: RunFiles) -> Iterator[str]:
    costs = run.summary.get("costs_per_client_and_round")
    if costs:
        sent, received = (costs[f"{way}_bytes"] / 1e6 for way in ("sent", "received"))
        yield f"A client sent {sent:.3g} MB and received {received:.3g} MB in a round."
    else:
        yield "The run is going on, or ended early."
    promised = run.summary.get("local_privacy")
    yield ""
    if promised:
        image, label = promised["image_epsilon"], promised["label_epsilon"]
        yield "Clients added noise to their data before: local differential privacy"
        if image is not None:
            yield f"of images, epsilon {readable(image)} at delta {promised['delta']:g};"
        if label is not None:
            yield f"of labels, epsilon {readable(label)};"
        yield "of nothing else."
    else:
        yield (
            "Nothing hid their data from whoever ran the server: images and labels of a batch "
            "can be rebuilt from what clients send. Who has this file alone has a generator, "
            "which may have learnt single images by heart."
        )
