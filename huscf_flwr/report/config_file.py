"""`config.toml`: the keys of a run, as `--config` takes them."""

import json
import sys
from importlib.metadata import version

from huscf_flwr.config import RunConfig
from huscf_flwr.keys import Value

_VERSIONS = ("flwr", "numpy", "scikit-learn", "torch")


def config_as_toml(config: RunConfig) -> str:
    """A config as TOML, with the versions used in comments."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in config.as_dict().items()]
    versions = [f"python {sys.version.split()[0]}", *(f"{n} {version(n)}" for n in _VERSIONS)]
    return "\n".join([*lines, "", *(f"# {line}" for line in versions)]) + "\n"


def _toml_value(value: Value) -> str:
    """JSON, which is TOML but for two things: escaped surrogates, and a plain delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
