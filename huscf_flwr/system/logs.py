"""What commands and apps show of the log."""

import logging


def set_up_logging() -> None:
    """Show this library's log lines on standard error, and of Flower's only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("huscf_flwr")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("flwr").setLevel(logging.WARNING)
