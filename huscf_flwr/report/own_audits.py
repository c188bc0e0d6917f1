"""What clients found of what they send, by their own audits, as a run writes it down."""

import logging
from typing import Any

from huscf_flwr.config import RunConfig
from huscf_flwr.privacy.exposure import Exposure
from huscf_flwr.report.records import RoundRecord

log = logging.getLogger(__name__)


class OwnAudits:
    """The last ones."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._round = 0
        self._found: list[Exposure] = []
        self._silent: list[int] = []

    def add(self, record: RoundRecord) -> None:
        """Take up, and log, those of a round, if there were any."""
        found, silent = [], []
        for client in record.clients:
            info = client.info
            if client.seen is None or info.cut is None:
                silent.append(info.number)
            else:
                classes = self._config.num_classes
                found.append(client.seen.exposure(info.number, info.cut, classes))
        if found:
            self._round, self._found, self._silent = record.round, found, silent
            log.info(
                "clients' own audits of what they send: %s",
                "; ".join(
                    f"client {one.client} {one.word} ({attack})"
                    for one in found
                    for attack in one.attacks.values()
                ),
            )

    def as_dict(self) -> dict[str, Any] | None:
        """For summary.json; None if there were none."""
        if not self._found:
            return None
        return {
            "after_round": self._round - 1,
            "images_of_a_client": self._config.batch_size,
            "not_audited": self._silent,
            "seed": self._config.seed,
            "clients": {str(one.client): one.as_dict() for one in self._found},
            "product": {},
            "fellows": [],
        }
