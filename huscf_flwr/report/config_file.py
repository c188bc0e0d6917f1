"""`config.toml`: the keys of a run, as `--config` takes them."""

import json
from collections.abc import Mapping

from huscf_flwr.config import RunConfig
from huscf_flwr.keys import Value


def config_as_toml(config: RunConfig, origin: Mapping[str, str]) -> str:
    """A config as TOML, with what it was run with in comments."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in config.as_dict().items()]
    return "\n".join([*lines, "", *(f"# {name} {value}" for name, value in origin.items())]) + "\n"


def _toml_value(value: Value) -> str:
    """JSON, which is TOML but for two things: escaped surrogates, and a plain delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
