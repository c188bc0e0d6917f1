"""Errors that a user can act on."""


class UserError(Exception):
    """Something the user set or supplied is wrong.

    The message is one line that names the key or file, its value, and what would be right. It is
    shown without a traceback.
    """
