"""What a key of a run is: its default, its help and its limits; values as users type them."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, field
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError, cause, did_you_mean, no_such_file

Value = str | int | float | bool

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
"""What values may be, in words."""


def key(
    default: Value,
    help_: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[Value, ...] = (),
    or_number: bool = False,
) -> Any:
    """A field that is a key of a run, with its help and what its values may be.

    With `or_number` a text may be written as a whole number, and be one beside its choices.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "choices": choices}
    return field(default=default, metadata={"help": help_, "or_number": or_number, **limits})


def read_settings(path: str | None, pairs: Iterable[str]) -> dict[str, Any]:
    """Values by key from a TOML file, overridden by `key=value` pairs as typed by a user.

    Raises
    ------
    UserError: the file cannot be read, or a pair has no `=`.
    """
    values: dict[str, Any] = {} if path is None else read_toml(path)
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise UserError(f'"{pair}" is not key=value')
        values[name] = _Typed(text)
    return values


def values_of(known: Iterable[Field[Any]], values: Mapping[str, Any]) -> dict[str, Value]:
    """Values by the names of their fields.

    Parameters
    ----------
    known: the fields that are keys.
    values: by key.

    Raises
    ------
    UserError: an unknown key, or a value of the wrong type.
    """
    by_key = {name_of(one.name): one for one in known}
    for name in values:
        if name not in by_key:
            meant = did_you_mean(name, by_key) or f" known are {', '.join(sorted(by_key))}"
            raise UserError(f'unknown key "{name}":{meant}')
    return {by_key[k].name: typed(by_key[k], value) for k, value in values.items()}


def read_toml(path: str) -> dict[str, Any]:
    """What a TOML file holds.

    Raises
    ------
    UserError: it cannot be read; where there is none, the message names one that is called alike.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise no_such_file(path) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as TOML: {cause(error)}") from None


_BOOLS = {"true": True, "false": False}


class _Typed(str):
    """Text that a user typed, to be read as whatever type its key has."""


def name_of(field_name: str) -> str:
    """The key of a field."""
    return field_name.replace("_", "-")


def typed(field_: Field[Any], value: Any) -> Value:
    """A value as its key has it; raises `UserError` where it is of another type."""
    whole = field_.type in (float, "float")  # whose default may be written as a whole number
    wanted: type[Value] = float if whole else type(field_.default)  # type: ignore[assignment]
    if isinstance(value, _Typed) and wanted is not str:
        try:
            return _BOOLS[value] if wanted is bool else wanted(value)
        except (ValueError, KeyError):
            pass
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and isinstance(value, str):
        return str(value)
    if field_.metadata.get("or_number") and type(value) is int:
        return str(value)
    if type(value) is not wanted:
        raise UserError(f"{name_of(field_.name)}={value!r}: must be {KINDS[wanted]}")
    checked: Value = value
    return checked


def check(field_: Field[Any], value: Any) -> None:
    """Raise `UserError` if a value is beyond what its key allows, where that says so."""
    limits, name = field_.metadata, name_of(field_.name)
    if limits.get("choices") and value not in limits["choices"]:
        allowed = ", ".join(str(choice) for choice in limits["choices"])
        if limits.get("or_number"):
            if value.isdecimal() and int(value) > 0:
                return
            raise UserError(f'{name}="{value}": must be {allowed} or a positive number')
        raise UserError(f"{name}={value}: must be one of {allowed}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: must be finite")
    if limits.get("at_least") is not None and value < limits["at_least"]:
        raise UserError(f"{name}={value}: must be at least {limits['at_least']}")
    if limits.get("above") is not None and value <= limits["above"]:
        raise UserError(f"{name}={value}: must be above {limits['above']}")
    if limits.get("at_most") is not None and value > limits["at_most"]:
        raise UserError(f"{name}={value}: must be at most {limits['at_most']}")


def check_address(name: str, value: str) -> str:
    """The host of a `host:port`; raises `UserError` where it is none."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f'{name}="{value}": must be host:port')
    return host


def check_bind(name: str, value: str, dialled: str, address: str) -> None:
    """Raise `UserError` unless one can listen there, and it is known what others dial.

    `dialled` is the setting that says so, where that is not what is listened on.
    """
    if check_address(name, value) in ("0.0.0.0", "[::]") and not address:
        raise UserError(
            f'{name}="{value}" is all of this machine\'s addresses: {dialled} must say which '
            "host:port the clients dial"
        )
