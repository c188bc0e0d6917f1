"""The folder where the user stands, for relative paths in the run config.

Flower runs an app from a copy, in processes of a background SuperLink, and does not say where
`flwr run` was called. So we look: the caller is still there when it streams the log; otherwise the
SuperLink's own folder is that of the call that started it.
"""

import os
from itertools import pairwise
from pathlib import Path

import psutil


def calling_folder() -> str:
    """Working directory of the `flwr run` that began this run, as well as it can be known."""
    me = psutil.Process()
    callers = [
        process
        for process in psutil.process_iter(["cmdline", "create_time", "uids"])
        if _is_flwr_run(process.info["cmdline"] or [])
        and process.info["create_time"] <= me.create_time()
        and process.info["uids"] == me.uids()
    ]
    callers.sort(key=lambda process: process.info["create_time"], reverse=True)
    for process in [*callers, *_superlinks(me)]:
        try:
            return str(process.cwd())
        except psutil.Error:
            continue
    return os.getcwd()


def _is_flwr_run(command: list[str]) -> bool:
    words = [Path(word).name for word in command]
    return any(pair == ("flwr", "run") for pair in pairwise(words))


def _superlinks(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [p for p in process.parents() if any("superlink" in w for w in p.cmdline())]
    except psutil.Error:
        return []
