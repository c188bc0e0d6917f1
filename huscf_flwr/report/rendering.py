"""Pages from templates: one file each, with its pictures in it."""

from collections.abc import Mapping
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from huscf_flwr.report.template import BASE, MACROS


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page from a template that extends `base`, with what it shows by its names."""
    environment = Environment(
        loader=DictLoader({"base": BASE, "macros": MACROS, "page": template}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = readable
    return environment.get_template("page").render(content).lstrip()


def readable(value: Any) -> str:
    """A value of any JSON or TOML file, for readers."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(readable(item) for item in value)
    return str(value)
