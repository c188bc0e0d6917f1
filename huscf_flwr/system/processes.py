"""Processes: for how long this one has been there, and those that somebody left behind."""

import os
import time
from contextlib import suppress

import psutil

_SECONDS = 10.0


def age_s() -> float:
    """Seconds since this process began."""
    began: float = psutil.Process().create_time()
    return max(0.0, time.time() - began)


def end_left(key: str, value: str) -> int:
    """End this machine's other processes that have `key=value` in their environment.

    Those that do not end in ten seconds when they are told to are killed. Returns how many there
    were.
    """
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(key) == value:
                process.terminate()
                left.append(process)
    for process in psutil.wait_procs(left, timeout=_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()
    return len(left)
