"""The scores on a run's page: the headline's cards, tables, and confusion matrices."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huscf_flwr.evaluation.scores import CHEAP_SCORES, REAL
from huscf_flwr.report import figures
from huscf_flwr.report.files import RunFiles, flat
from huscf_flwr.report.rendering import readable

_IMAGE_SCORE = CHEAP_SCORES[0]

Rows = list[list[Any]]


def cards(run: RunFiles) -> Iterator[dict[str, Any]]:
    """For each domain, or cluster where no domain is known: the main score, and images.

    The last generated grid of its main cluster, beside the domain's real images.
    """
    grids = run.grids()
    for name, rows in run.curves().items():
        last = rows[-1]
        pictures = []
        if (generated := grids.get(last.cluster, {}).get(last.round)) is not None:
            what = f"Generated images, cluster {last.cluster}, round {last.round}"
            pictures.append(figures.image(generated, what, "generated"))
            if (real := run.real_grid(last.domain)) is not None:
                pictures.append(figures.image(real, f"Real {name}, held out", "real, held out"))
        whose = f"generated {name}", f"real {name}"
        sounds = [
            figures.sound(path, f"A recording of each class, {what}")
            for path, what in zip(run.sounds(last.cluster, last.domain), whose, strict=False)
        ]
        score = _main_score(run, name)
        yield {"name": name, "score": score, "pictures": pictures, "sounds": sounds}


def _main_score(run: RunFiles, name: str) -> dict[str, Any] | None:
    """Utility at the end of a run; before that the last image score, if there is one."""
    utility = run.last_scores().get(name, {}).get("utility")
    if utility is not None:
        real = run.details()[name].get("utility", {}).get("real")
        return {
            "value": f"{utility['accuracy']:.3f}",
            "what": "utility",
            "real": real and f"{real['accuracy']:.3f}",
        }
    for row in reversed(run.curves()[name]):
        if _IMAGE_SCORE in row.values:
            real = row.values.get(_IMAGE_SCORE + REAL)
            return {
                "value": f"{row.values[_IMAGE_SCORE]:.2f}",
                "what": f"image score, round {row.round}",
                "real": real and f"{real:.2f}",
            }
    return None


def score_rows(scored: Mapping[str, Mapping[str, Any]]) -> Rows:
    """A row for each score, whatever their names, and a column for each domain or cluster."""
    columns = [dict(flat(scores)) for scores in scored.values()]
    names = dict.fromkeys(name for scores in columns for name in scores)
    return [
        [figures.title(name), *(_text(scores.get(name)) for scores in columns)] for name in names
    ]


def beside_real(scores: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Scores, each with what real images get in parentheses where `details` have it."""

    def text(score: Any, real: Any) -> Any:
        if isinstance(score, Mapping):
            return {name: text(value, (real or {}).get(name)) for name, value in score.items()}
        return score if real is None else f"{_text(score)} ({_text(real)})"

    return {name: text(score, details.get(name, {}).get("real")) for name, score in scores.items()}


def _text(score: Any) -> str:
    """Scores have four digits, zeros at the end among them."""
    return f"{score:#.4g}" if isinstance(score, float) else readable(score)


def confusions(run: RunFiles) -> Iterator[dict[str, Any]]:
    """The confusion matrices, shaded by the shares of a class, what is wrong in another colour."""
    for name, counts in run.confusions().items():
        names = run.classes.get(name.partition(",")[0]) or map(str, range(len(counts)))
        rows = zip(names, range(len(counts)), counts, strict=False)
        yield {"name": name, "rows": [_row(called, label, row) for called, label, row in rows]}


def _row(called: str, label: int, counts: Sequence[int]) -> dict[str, Any]:
    images = sum(counts)
    return {
        "label": called,
        "cells": [
            {
                "count": count,
                "kind": "right" if place == label else "wrong",
                # By the root, so that a few wrong ones of many can be seen.
                "shade": f"{0.6 * math.sqrt(count / images):.2f}" if count else "",
            }
            for place, count in enumerate(counts)
        ],
        "right": f"{100 * counts[label] / images:.0f}%" if images else "-",
    }
