"""What a client finds out about what it sends, for itself and, in numbers, for the server."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from flwr.common import Scalar

from huscf_flwr.data.batches import LabelledImages
from huscf_flwr.privacy.own_audit import Seen, audit_own
from huscf_flwr.privacy.rebuilding import Sender, Victim
from huscf_flwr.report.grids import save_strips
from huscf_flwr.system.files import replacing

log = logging.getLogger(__name__)


def audited(
    sender: Sender, victim: Victim, others: LabelledImages, *, seed: int, picture: Path | None
) -> Mapping[str, Scalar]:
    """Audit a batch, log what was found, and return what the server may know of that.

    Parameters
    ----------
    sender, victim, others, seed: as for `audit_own`; `others` may be none.
    picture: a file for real images of the batch and, below them, what each attack made of them,
        as private as these; None for none.

    Raises
    ------
    OSError: the picture cannot be written.
    ValueError: a number of it is none.
    """
    started = time.monotonic()
    if not len(others):
        log.warning("client %d: all its images are in one batch: not audited", victim.number)
        return {}
    rebuilt = audit_own(sender, victim, others, seed=seed)
    found = rebuilt.exposure
    log.info(
        "client %d, cut %s: to the server its images are %s (%s); audited in %.1f s",
        victim.number,
        found.cut,
        found.word,
        "; ".join(f"{name}: {attack}" for name, attack in found.attacks.items()),
        time.monotonic() - started,
    )
    if picture is not None:
        with replacing(picture) as aside:
            save_strips([victim.images, *rebuilt.images.values()], aside)
        log.info("client %d: pictures of that in %s", victim.number, picture)
    told = Seen.of(found).as_metrics()
    Seen.from_metrics(told)  # or the server would refuse the round's result
    return told
