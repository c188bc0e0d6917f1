"""Errors that a user can act on."""

from textwrap import shorten


class UserError(Exception):
    """Something the user set or supplied is wrong.

    The message is one line that names the key or file, its value, and what would be right. It is
    shown without a traceback.
    """


def cause(error: Exception) -> str:
    """What an error says, in one short line; of the system's without number and file name."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return shorten(text, 200, placeholder=" ...") or type(error).__name__
