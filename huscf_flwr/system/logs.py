"""What commands and apps show of the log."""

import logging
import warnings

_QUIET_SECONDS = 60.0


class CountRepeats(logging.Filter):
    """Shows a warning that is repeated once a minute, and says how often it came meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        line = record.getMessage()
        shown_at, more = self._shown.get(line, (float("-inf"), 0))
        if record.created - shown_at < _QUIET_SECONDS:
            self._shown[line] = shown_at, more + 1
            return False
        since = record.created - _QUIET_SECONDS  # others would fill the memory in the long run
        self._shown = {k: v for k, v in self._shown.items() if v[0] > since}
        self._shown[line] = record.created, 0
        if more:
            record.msg, record.args = f"{line} ({more} times more in between)", None
        return True


def set_up_logging() -> None:
    """Show this library's log lines on standard error, and of Flower's only warnings.

    Nor is shown what Ray says to everybody who starts it.
    """
    warnings.filterwarnings("ignore", "Tip: In future versions of Ray, Ray will", FutureWarning)
    show_own_lines()
    logging.getLogger("flwr").setLevel(logging.WARNING)


def show_own_lines() -> None:
    """Show this library's log lines on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(CountRepeats())
    logger = logging.getLogger("huscf_flwr")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def in_words(seconds: float) -> str:
    """A time that is guessed."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
