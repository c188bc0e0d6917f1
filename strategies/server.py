"""The Flower server of all engines: Flower's rounds, then the results, and an orderly end."""

import logging
import threading

from flwr.common import Parameters, Scalar
from flwr.server import History, Server, SimpleClientManager
from flwr.server.server import EvaluateResultsAndFailures, FitResultsAndFailures

from strategies.base import GANStrategy
from strategies.failures import RoundLost

log = logging.getLogger(__name__)
_HEARTBEAT_SECONDS = 20.0
_ATTEMPTS = 3


class GANServer(Server):
    """Runs a strategy's rounds, finishes and closes it, and says every while where it stands."""

    def __init__(self, strategy: GANStrategy, *, max_workers: int) -> None:
        """Serve `strategy`; `max_workers` clients are talked to at a time."""
        super().__init__(client_manager=SimpleClientManager(), strategy=strategy)
        self.set_max_workers(max_workers)
        self._strategy = strategy

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run up to round `num_rounds` and write the results; the strategy is closed for sure."""
        done = threading.Event()
        heart = threading.Thread(target=self._beat, args=(done,), name="heartbeat", daemon=True)
        heart.start()
        try:
            history = super().fit(num_rounds - self._strategy.rounds_before, timeout)
            self._strategy.finish()
            return history
        finally:
            done.set()
            heart.join()
            self._strategy.close()

    def fit_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[Parameters | None, dict[str, Scalar], FitResultsAndFailures] | None:
        """A round; where nobody finishes it, it is repeated with those who are there then.

        Raises
        ------
        UserError: it was repeated in vain, or nobody came in time.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self.train_round(server_round, timeout)
            except RoundLost as lost:
                log.warning("%s; it is repeated", lost)
        return self.train_round(server_round, timeout)

    def train_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[Parameters | None, dict[str, Scalar], FitResultsAndFailures] | None:
        """A round, once; raises `RoundLost` if nobody finishes it."""
        found = super().fit_round(server_round, timeout)
        if found is None:
            return None
        parameters, metrics, (_, failures) = found
        return parameters, metrics, ([], failures)  # results are in the models now

    def evaluate_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[float | None, dict[str, Scalar], EvaluateResultsAndFailures] | None:
        """Ask clients for scores, if any are due of them; then the round is complete."""
        found = super().evaluate_round(server_round, timeout)
        self._strategy.record_round(server_round)
        return found

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            now = self._strategy.progress()
            if now.planned:
                log.info("  %d of %d client iterations, %s", now.done, now.planned, now.note)
