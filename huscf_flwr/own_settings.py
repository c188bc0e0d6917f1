"""Settings that a strategy of one's own declares: a dataclass, which a run sets by a key, as text.

One key for all of them, as Flower refuses keys that the app's pyproject.toml does not have.
"""

import re
import shlex
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from huscf_flwr.errors import UserError
from huscf_flwr.keys import KINDS, Value, check, name_of, read_settings, typed, values_of

KEY = "strategy-settings"

S = TypeVar("S")


@dataclass(frozen=True)
class NoSettings:
    """Of a strategy that has none of its own."""


def read_own(defaults: S, text: str) -> S:
    """Settings as a run has them.

    Parameters
    ----------
    defaults: a dataclass of settings, each with a default that is text, a whole number, a number,
        or true or false; fields that are made by `keys.key` may have limits.
    text: `name=value`, comma separated; what is absent keeps its default. A value that has commas
        or spaces is put in quotes.

    Raises
    ------
    UserError: an unknown name, or a value of the wrong type or outside what is allowed; or
        `defaults` is something else.
    """
    known = _declared(defaults)
    if text and not known:
        raise UserError(f'{KEY}="{text}": the strategy declares no settings')
    words = shlex.shlex(text, posix=True)
    words.whitespace, words.whitespace_split, words.escape, words.commenters = ", ", True, "", ""
    try:
        given = values_of(known, read_settings(None, words))
        kept = {one.name: typed(one, getattr(defaults, one.name)) for one in known}
        found: S = replace(defaults, **{**kept, **given})  # type: ignore[type-var]
        for one in known:
            check(one, getattr(found, one.name))
    except (UserError, ValueError) as error:  # or a quotation without end, or their own check's
        raise UserError(f"{KEY}: {error}") from None
    return found


def as_text(settings: object) -> str:
    """All of these settings, as `read_own` takes them."""
    values = {one.name: getattr(settings, one.name) for one in _declared(settings)}
    return ",".join(f"{name_of(name)}={_typed(value)}" for name, value in values.items())


def _typed(value: Value) -> str:
    """A value as users type it."""
    if not isinstance(value, str):
        return str(value).lower()
    if re.fullmatch(r"[\w./:-]+", value, flags=re.ASCII):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def _declared(settings: object) -> tuple[Field[Any], ...]:
    """The fields of a dataclass of settings."""
    if isinstance(settings, type) or not is_dataclass(settings):
        raise UserError(f"settings = {settings!r}: must be a dataclass, made with its defaults")
    for one in fields(settings):
        if type(one.default) not in KINDS:
            where = f"{type(settings).__name__}.{one.name}"
            raise UserError(f"{where}: its default must be {' or '.join(KINDS.values())}")
    return fields(settings)
