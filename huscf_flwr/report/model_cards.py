"""A card beside every generator that a run saved: what it makes, how well, and how to load it.

In Markdown, with the parts that Mitchell et al. ask for in "Model Cards for Model Reporting"
(2019), as far as a run knows them.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from huscf_flwr.report.files import Member, RunFiles, flat
from huscf_flwr.report.rendering import readable
from huscf_flwr.system.files import replacing


def write_cards(run: RunFiles) -> None:
    """Write `generator-cluster-Y.md` for each generator of a run.

    Raises
    ------
    OSError: one cannot be written.
    """
    for cluster in sorted({member.cluster for member in run.last_members}):
        with replacing(run.folder / f"{_name(cluster)}.md") as aside:
            aside.write_text("\n".join(_card(run, cluster)) + "\n", encoding="utf-8")


def _name(cluster: int) -> str:
    return f"generator-cluster-{cluster}"


def _card(run: RunFiles, cluster: int) -> Iterator[str]:
    members = [member for member in run.last_members if member.cluster == cluster]
    domains = sorted({member.domain for member in members} - {""})
    config = run.config
    yield f"# Generator of {_listed(domains) or f'cluster {cluster}'}"
    yield ""
    if grids := run.grids().get(cluster):
        grid = grids[max(grids)].relative_to(run.folder).as_posix()
        yield f"![Generated images, a column for each class]({grid})"
        yield ""
    yield from _what(run, domains)
    yield ""
    yield "## Loading it"
    yield ""
    file = f"{_name(cluster)}.safetensors"
    net = config.get("net", "")
    own = f', net="{net}"' if ":" in net else ""
    yield "```python"
    yield "import huscf_flwr"
    yield ""
    yield f'generator = huscf_flwr.load_generator("{file}"{own})'
    yield "images, labels = generator.sample(100)  # images from -1 to 1"
    yield "```"
    yield ""
    yield "## What it was trained on"
    yield ""
    yield from _data(run, members)
    yield ""
    yield "## How good it is"
    yield ""
    yield from _scores(run, cluster)
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


def _data(run: RunFiles, members: list[Member]) -> Iterator[str]:
    yield "| domain | clients | training images |"
    yield "|---|---|---|"
    for domain in sorted({member.domain for member in members}):
        sizes = [member.size for member in members if member.domain == domain]
        yield f"| {_plain(domain) or 'their own'} | {len(sizes)} | {sum(sizes)} |"
    yield ""
    yield f"Partition: {run.config.get('partition')}; seed {run.config.get('seed')}."


def _scores(run: RunFiles, cluster: int) -> Iterator[str]:
    found = {of: s for of, s in run.last_scores().items() if _cluster_of(of, s) == cluster}
    if not found:
        yield "Not scored yet."
        return
    for of, scores in found.items():
        details = run.details()[of]
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
    line = html.escape(" ".join(text.split()))
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#|!" else c for c in line)


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
        yield (
            "Clients added noise to their data before. Local differential privacy of images: "
            f"epsilon {readable(promised['image_epsilon'])} at delta {promised['delta']:g}; of "
            f"labels: epsilon {readable(promised['label_epsilon'])}."
        )
    else:
        yield (
            "Nothing hid their data from whoever ran the server: images and labels of a batch "
            "can be rebuilt from what clients send. Who has this file alone has a generator, "
            "which may have learnt single images by heart."
        )
