"""How much clients may count by what they say of themselves."""

from collections.abc import Mapping
from statistics import median_low

_MOST_TIMES = 5
_FEWEST = 3
_LARGEST_SHARE = 0.5


def counted_sizes(stated: Mapping[str, int]) -> dict[str, int]:
    """How many images each client counts for: five times as many as the median, at most.

    That bounds a round's iterations, too, which are those of the largest client.
    """
    if not stated:
        return {}
    most = _MOST_TIMES * median_low(stated.values())
    return {client: min(size, most) for client, size in stated.items()}


def bounded_shares(shares: Mapping[int, float]) -> dict[int, float]:
    """Weights in a cluster, of which none is more than all others together.

    Where there are three or more; of two one always is.
    """
    if len(shares) < _FEWEST:
        return dict(shares)
    largest = max(shares, key=lambda client: shares[client])
    if shares[largest] <= _LARGEST_SHARE:
        return dict(shares)
    others = {client: share for client, share in shares.items() if client != largest}
    total = sum(others.values())
    equal = 1 / len(others)
    return {
        client: _LARGEST_SHARE
        if client == largest
        else (1 - _LARGEST_SHARE) * (share / total if total else equal)
        for client, share in shares.items()
    }
