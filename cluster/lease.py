"""One run, one process: the lock on a run folder."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from cluster.errors import ClusterUserError
from cluster.storage import disk_errors, write_atomically

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock-holder.json"


class RunLock:
    """The exclusive right to write into a run folder, for the length of a ``with`` block.

    The kernel holds the lock for the process, so it is free again however the process ended, `kill -9` included. A
    small file beside it says who holds it; that file is information for people only and never decides anything.

    Args:
        folder: the run folder; made if it is absent.

    Raises:
        ClusterUserError: on entering, when another process (or another block of this one) holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK_FILE, blocking=False, thread_local=False)

    def __enter__(self) -> RunLock:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise ClusterUserError(self._who_holds_it()) from None
            try:
                write_atomically(self.folder / HOLDER_FILE, json.dumps(_this_process()) + "\n")
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        (self.folder / HOLDER_FILE).unlink(missing_ok=True)
        self._lock.release()

    def _who_holds_it(self) -> str:
        advice = "wait until it ends, stop it, or give another --run-dir"
        try:
            holder = json.loads((self.folder / HOLDER_FILE).read_text(encoding="utf-8"))
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return f"run folder {self.folder} is in use by {who}; {advice}"


def _this_process() -> dict[str, str | int]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
