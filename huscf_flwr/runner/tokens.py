"""Tokens: secrets by which clients that dial prove who they are, and how long each is good."""

import secrets
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def holder_of(token: str, holders: Mapping[str, T]) -> T | None:
    """Whose token it is. How long that takes says nothing of the tokens that there are."""
    shown, found = token.encode(), None
    for known, holder in holders.items():
        if secrets.compare_digest(shown, known.encode()):
            found = holder
    return found


class EchoTokens:
    """Tokens for measuring the link to the runner: one for each client, for a while."""

    def __init__(self) -> None:
        self._good_until: dict[str, float] = {}

    def new(self, now: float, seconds: float) -> str:
        """One that is good for so long."""
        self._good_until = {t: end for t, end in self._good_until.items() if end > now}
        token = new_token()
        self._good_until[token] = now + seconds
        return token

    def good_until(self, token: str, now: float) -> float | None:
        """When it is good no more; None if it is none of them, or good no more now."""
        until = holder_of(token, self._good_until)
        return until if until is not None and now < until else None
