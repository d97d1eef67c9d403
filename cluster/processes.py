"""Telling apart, and ending, the processes that one local Ray started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import psutil

#: Environment variable that marks every process of one local Ray: children inherit it, so orphans are found too.
CLUSTER_MARK = "NETSUKE_CLUSTER"


def marked_processes(mark: str) -> list[psutil.Process]:
    """Living processes that were started with ``CLUSTER_MARK=mark`` in their environment, and their descendants.

    Descendants are added because a few of Ray's helpers overwrite the memory in which the kernel shows their
    environment. This process itself is left out.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(CLUSTER_MARK) == mark:
                found[process.pid] = process
                found.update({child.pid: child for child in process.children(recursive=True)})
    return [process for process in found.values() if is_alive(process)]


def end_processes(processes: Iterable[psutil.Process], patience: float = 3.0) -> list[psutil.Process]:
    """End the given processes: wait ``patience`` seconds, then SIGTERM, then SIGKILL; returns those that were killed.

    A `psutil.Process` carries its start time: a process number that was given to somebody else meanwhile is never hit.
    """
    _, alive = psutil.wait_procs(list(processes), timeout=patience)
    for process in alive:
        with suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=patience)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=patience)
    return stubborn


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
