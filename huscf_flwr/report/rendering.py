"""Pages from templates: one file each, with its pictures in it."""

import base64
import hashlib
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from huscf_flwr.report.base_template import BASE, MACROS


def render(template: str, content: dict[str, Any], script: str = "") -> str:
    """A page from a template that extends `base`, with what it shows by its names.

    Its own `script` is there by this name, and as `script_hash` what lets a browser run it and no
    other.
    """
    environment = Environment(
        loader=DictLoader({"base": BASE, "macros": MACROS, "page": template}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = readable
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    of_script = {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}
    return environment.get_template("page").render(content | of_script).lstrip()


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
