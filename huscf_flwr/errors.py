"""Errors that a user can act on."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

_NAMED = 5


class UserError(Exception):
    """Something the user set or supplied is wrong.

    The message is one line that names the key or file, its value, and what would be right. It is
    shown without a traceback.
    """


def cause(error: Exception) -> str:
    """What an error says, in one short line; of the system's without number and file name."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return shorten(text, 200, placeholder=" ...") or type(error).__name__


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The question by which a message goes on, with a space before it; empty if none is alike."""
    near = difflib.get_close_matches(text, known, n=1)
    return f' did you mean "{near[0]}"?' if near else ""


def no_such_file(path: str | Path) -> UserError:
    """The error of a file that is not there; it names one beside it that is called alike."""
    wanted = Path(path)
    beside = (file.stem for file in wanted.parent.glob(f"*{wanted.suffix}"))
    near = difflib.get_close_matches(wanted.stem, beside, n=1)
    meant = f': did you mean "{wanted.with_stem(near[0])}"?' if near else ""
    return UserError(f"{path}: no such file{meant}")


def some(names: Sequence[str]) -> str:
    """As many of what is wrong as a line can take."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
