"""What an audit found, for people: rows of the page's tables, and lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Rows = list[list[Any]]

_CLIENTS = (
    "client", "cut", "images", "best attack", "similarity", "of the class's mean image",
    "of another image of the class", "labels read", "by chance", "its most common",
    "labels to generate",
)  # fmt: skip
_ATTACKS = ("attack", "similarity", "PSNR, dB", "labels read")
_PRODUCT = ("cluster", "what tells members", "AUC", "found at 1% false", "images")
_COPIES = ("cluster", "nearer to a member", "copies of a member")
_FELLOWS = ("client", "label", "recognised", "in images of other labels")


def named(number: str, client: Mapping[str, Any]) -> str:
    """A client, and the domain of its images if that is known."""
    return ", ".join(filter(None, (number, client["domain"])))


def _client_rows(audit: Mapping[str, Any]) -> Rows:
    """A row for each client: how well its images and labels can be seen, beside what anybody
    would guess."""
    found = []
    for number, client in audit["clients"].items():
        name, best = max(client["attacks"].items(), key=lambda item: item[1]["ssim"] or -1.0)
        without = client["without_attack"]
        labels = [a["labels"] for a in client["attacks"].values() if a["labels"] is not None]
        found.append(
            [
                named(number, client),
                client["cut"],
                client["images"],
                name,
                best["ssim"],
                without["mean image of the class"]["ssim"],
                without["another image of the class"]["ssim"],
                _percent(max(labels, default=None)),
                _percent(without["label by chance"]),
                _percent(without["share of the most common label"]),
                _percent(client["labels_to_generate"]),
            ]
        )
    return found


def _attack_rows(audit: Mapping[str, Any]) -> Rows:
    """A row for each attack, with the most that it found of any client."""
    clients = list(audit["clients"].values())
    names = dict.fromkeys(name for client in clients for name in client["attacks"])

    def most(name: str, of: str) -> float | None:
        values = [c["attacks"][name][of] for c in clients if name in c["attacks"]]
        return max((value for value in values if value is not None), default=None)

    return [
        [name, most(name, "ssim"), most(name, "psnr"), _percent(most(name, "labels"))]
        for name in names
    ]


def _product_rows(audit: Mapping[str, Any]) -> Rows:
    """Rows for each cluster: how well its nets tell members from others."""
    found: Rows = []
    for cluster, leak in audit["product"].items():
        for what, key in (
            ("the discriminator", "by_discriminator"),
            ("distance to generated images", "by_distance"),
        ):
            if leak[key] is not None:
                one = leak[key]
                share = _percent(one["found_at_1_percent"])
                found.append([cluster, what, one["auc"], share, leak["images"]])
    return found


def _copies_rows(audit: Mapping[str, Any]) -> Rows:
    """A row for each cluster: how near its generated images are to its members."""
    return [
        [cluster, _percent(leak["nearer"]), _percent(leak["copies"])]
        for cluster, leak in audit["product"].items()
    ]


def _fellow_rows(audit: Mapping[str, Any]) -> Rows:
    """A row for each class that one client of a cluster alone has."""
    return [
        [one["client"], one["label"], _percent(one["recognised"]), _percent(one["otherwise"])]
        for one in audit["fellows"]
    ]


def tables(audit: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """The tables of all that was found: their titles, heads and rows."""
    for title, head, rows in (
        ("Clients", _CLIENTS, _client_rows(audit)),
        ("Attacks, the most that each found of any client", _ATTACKS, _attack_rows(audit)),
        ("What the nets tell of the images they were trained on", _PRODUCT, _product_rows(audit)),
        ("How near generated images are to those", _COPIES, _copies_rows(audit)),
        ("What fellows have of classes that one client alone has", _FELLOWS, _fellow_rows(audit)),
    ):
        if rows:
            yield title, head, rows


def promise(local: Mapping[str, Any] | None) -> str:
    """What the noise that clients add promises, as a sentence; empty where they add none."""
    if local is None:
        return ""
    image, label, delta = (local[key] for key in ("image_epsilon", "label_epsilon", "delta"))
    of_image = f"epsilon {image:.4g} at delta {delta:g}" if image is not None else "nothing"
    of_label = f"epsilon {label:.4g}" if label is not None else "nothing"
    return (
        "What local differential privacy promises of all that leaves a device, in all rounds: "
        f"{of_image} for an image, {of_label} for its label."
    )


def lines(audit: Mapping[str, Any]) -> Iterator[str]:
    """These tables as text."""
    for title, head, rows in tables(audit):
        yield from (title, "", *_table(head, rows), "")


def _table(head: Sequence[str], rows: Rows) -> Iterator[str]:
    cells = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _text(cell: Any) -> str:
    return "-" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f}%"
