"""A node's own images: what is wrong with them goes to the node's log, not to the server."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huscf_flwr.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def own_data(path: str) -> Iterator[None]:
    """Where a node works with data of its own: its log has the errors, answers do not.

    Raises
    ------
    UserError: in place of any error, which goes to this node's log.
    """
    try:
        yield
    except Exception as error:
        log.error("data=%s cannot be used: %s: %s", path, type(error).__name__, error)
        raise UserError("its own data cannot be used; its log says why") from None
