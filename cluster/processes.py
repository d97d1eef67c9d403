"""Telling apart, and ending, the processes that one local Ray started."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

#: Environment variable that marks every process of one local Ray: children inherit it, so orphans are found too.
CLUSTER_MARK = "NETSUKE_CLUSTER"


def marked_processes(mark: str) -> list[psutil.Process]:
    """Living processes (this one excepted) that were started with ``CLUSTER_MARK=mark`` in their environment, and their descendants.

    Descendants are added because a few of Ray's helpers overwrite the memory in which the kernel shows their environment.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _mark_of(process) == mark:
            found[process.pid] = process
            found.update({child.pid: child for child in _descendants(process)})
    return [process for process in found.values() if _is_alive(process)]


def end_processes(processes: Iterable[psutil.Process], patience: float = 3.0) -> list[psutil.Process]:
    """End the given processes: wait ``patience`` seconds, then SIGTERM, then SIGKILL; returns those that had to be killed.

    A `psutil.Process` carries its start time, so a process number that was given to somebody else in between is never hit.
    """
    _, alive = psutil.wait_procs(list(processes), timeout=patience)
    for process in alive:
        _quietly(process.terminate)
    _, stubborn = psutil.wait_procs(alive, timeout=patience)
    for process in stubborn:
        _quietly(process.kill)
    psutil.wait_procs(stubborn, timeout=patience)
    return stubborn


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(CLUSTER_MARK)
    except (psutil.Error, OSError):
        return None


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _quietly(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except psutil.Error:
        return
