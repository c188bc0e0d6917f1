"""Why clients are missing in a round, in the log; a round that all are missing in; mistakes."""

import logging
from collections.abc import Mapping

from flwr.common import EvaluateRes, FitRes
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.errors import UserError

log = logging.getLogger("huscf_flwr.strategy")


class RoundLost(UserError):
    """Nobody finished a round, or it spoilt the nets: all is as before, and it may be repeated."""


class StrategyError(UserError):
    """What a strategy's own method returned cannot be, see `returned`: the run ends."""


FitFailures = list[tuple[ClientProxy, FitRes] | BaseException]
EvaluateFailures = list[tuple[ClientProxy, EvaluateRes] | BaseException]
"""What Flower hands a strategy of clients that did not answer, or not well."""


def explain(
    server_round: int,
    reasons: Mapping[int, str],
    failures: FitFailures | EvaluateFailures,
) -> None:
    """Log why clients are missing; what Flower reports, once for all alike."""
    for reason in sorted(set(reasons.values())):
        log.warning("round %d: %s", server_round, reason)
    texts: dict[str, int] = {}
    for failure in failures:
        text = str(failure if isinstance(failure, BaseException) else failure[1].status)
        text = text.strip().splitlines()[-1] if text.strip() else repr(failure)
        texts[text] = texts.get(text, 0) + 1
    for text, count in texts.items():
        log.warning("round %d: Flower reports for %d client(s): %s", server_round, count, text)
