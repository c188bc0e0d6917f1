"""Auditing a run of a simulation: all attacks on it, and where what they found is written."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huscf_flwr.errors import UserError
from huscf_flwr.privacy.audit import DECODER_STEPS_A_KIND
from huscf_flwr.privacy.exposure import Exposure
from huscf_flwr.privacy.fellows import Learned
from huscf_flwr.privacy.membership import Leak
from huscf_flwr.privacy.rebuilding import Rebuilt, Victim
from huscf_flwr.report.files import AUDIT, RunFiles, write_json
from huscf_flwr.report.grids import save_strips
from huscf_flwr.report.page import write_page
from huscf_flwr.system.cpu import cores, use_threads
from huscf_flwr.system.files import replacing
from simulations.audited import Audited


class Progress:
    """Told of each step; does nothing with it."""

    def total(self, steps: int) -> None:
        """How many there will be."""

    def step(self) -> None:
        """Called by several threads."""


_NOBODY = Progress()


def audit_run(
    folder: Path, base_dir: str, *, seed: int = 0, progress: Progress = _NOBODY
) -> dict[str, Any]:
    """Attack what a run has left; the results go into its summary.json, audit/ and report.html.

    Parameters
    ----------
    folder: of a finished run with data that was dealt.
    base_dir: that relative paths of its data start from.
    seed: of all that is random in the attacks.
    progress: told how many steps there will be, and of each.

    Returns
    -------
    What is in summary.json now under `audit`.

    Raises
    ------
    UserError: the run is not finished, its data was the clients' own or is not here, its images
        are too small to compare, or the results cannot be written.
    """
    started = time.monotonic()
    run = Audited(folder, base_dir, seed)
    kinds = run.kinds()
    progress.total(len(kinds) * DECODER_STEPS_A_KIND)
    with ThreadPoolExecutor(cores(), "audit", initializer=use_threads, initargs=(1,)) as pool:
        running = [pool.submit(run.attack, members, progress.step) for members in kinds]
        product = {c: pool.submit(run.leak, c) for c in run.clusters}
        fellows = [pool.submit(run.learned, *place) for place in run.places]
        rebuilt = [one for future in running for one in future.result()]
        found = _as_dict(
            run,
            [one.exposure for one, _ in rebuilt],
            {cluster: future.result() for cluster, future in product.items()},
            [one for future in fellows for one in future.result()],
            seed,
        )
    found["seconds"] = round(time.monotonic() - started, 1)
    _write(run.files, found, rebuilt)
    return found


def _write(run: RunFiles, found: Mapping[str, Any], rebuilt: list[tuple[Rebuilt, Victim]]) -> None:
    """Add what was found to the run's folder."""
    folder, summary = run.folder, {**run.summary, AUDIT: found}
    try:
        (folder / AUDIT).mkdir(exist_ok=True)
        for one, victim in rebuilt:
            with replacing(folder / AUDIT / f"client-{victim.number}.png") as aside:
                save_strips([victim.images, *one.images.values()], aside)
        write_json(folder / "summary.json", summary)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error}") from None
    write_page(folder)


def _as_dict(
    run: Audited,
    exposures: list[Exposure],
    leaks: Mapping[int, Leak],
    fellows: list[Learned],
    seed: int,
) -> dict[str, Any]:
    """What was found, for summary.json."""
    absent = set(range(run.partitions)) - {member.client for member in run.members}
    return {
        "after_round": run.checkpoint.round,
        "images_of_a_client": run.config.batch_size,
        "not_audited": sorted(absent),
        "seed": seed,
        "clients": {str(e.client): e.as_dict() for e in sorted(exposures, key=lambda e: e.client)},
        "product": {str(cluster): asdict(leak) for cluster, leak in leaks.items()},
        "fellows": [asdict(one) for one in fellows],
    }
