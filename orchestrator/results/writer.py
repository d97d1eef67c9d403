"""The writer: rows in, parts out, at most a moment later."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from orchestrator.errors import RunError, UserError
from orchestrator.results.compaction import compact_quietly
from orchestrator.results.parts import list_parts, new_part_name, part_version, write_part
from orchestrator.results.rows import Row, RowChecker, find_table
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder, Place, folder_at, reason_of

_ABANDONED_AFTER_SECONDS = 600.0
_COMPACT_AT_CLOSE = 8
_COMPACT_WHILE_WRITING = 64
_REMEDY = "free space there, correct its permissions or (of a server) make it answer"
_CLOCK_TICK = timedelta(microseconds=1)


class ResultsWriter:
    """Writes the rows of one run into the tables of a results folder.

    Use it as a context manager. Rows are buffered; a part appears on the disk once ``flush_rows`` rows of a table wait,
    or ``flush_seconds`` after the first of them was appended, so a writer that is killed loses what came after the last
    flush and nothing else. Any number of threads may share a writer, and any number of writers (in any process) may
    write to one folder.

    When the disk is full no row is lost: they stay in memory, and the next call (``append`` included, after it took its
    row) raises a ``RunError`` that says what to do. Flushing goes on being tried. A remote storage may have taken a
    part whose writing seemed to fail: the same rows are tried again under the same name, so none is there twice.

    Args:
        folder: the results folder, or its URL (see :func:`orchestrator.results.storage.folder_at`); made if needed,
            with a folder and at least one part for every table. The bucket of an object store has to exist.
        run_id: written into every row.
        flush_rows: rows of a table that make a part at once.
        flush_seconds: how long a row may wait.

    Raises:
        UserError: a nonsensical argument, or the folder holds tables of another major schema version.
        RunError: the folder cannot be written to.
    """

    def __init__(self, folder: Place, run_id: str, flush_rows: int = 1000, flush_seconds: float = 2.0) -> None:
        if flush_rows < 1:
            raise UserError(f"flush_rows: found {flush_rows}, expected at least 1")
        if not flush_seconds > 0:
            raise UserError(f"flush_seconds: found {flush_seconds}, expected a positive number of seconds")
        self._folder = folder_at(folder)
        self._run_id = run_id
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._buffers = {name: _Buffer(RowChecker(table)) for name, table in TABLES.items()}
        self._changed = threading.Condition()  # guards the buffers' rows and all that follows
        self._last_recorded = datetime.fromtimestamp(0, UTC)
        self._background_error: Exception | None = None
        self._accepting = True
        self._stopping = False
        self._prepare_folder()
        # Two, because merging takes a while on a remote storage, and rows must not wait for it.
        self._threads = [
            threading.Thread(target=work, name=f"results-{name}", daemon=True)
            for name, work in (("flusher", self._flush_when_due), ("merger", self._merge_when_crowded))
        ]
        for thread in self._threads:
            thread.start()

    def append(self, table: str, **columns: Any) -> None:
        """Add one row; ``run_id`` and ``recorded_at`` are filled in unless given.

        Raises:
            UserError: an unknown table or column, a missing required one, or a wrong type; no row was added.
            RunError: rows could not be written to the disk (they are kept, this one too), or the writer is closed.
        """
        self.extend(table, [columns])

    def extend(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, all or (if one of them is wrong) none; see :meth:`append`.

        Raises:
            UserError: as for :meth:`append`.
            RunError: as for :meth:`append`.
        """
        buffer = self._buffers[find_table(table).name]
        filled = [{"run_id": self._run_id, "recorded_at": None, **row} for row in rows]
        with self._changed:
            if not self._accepting:
                raise RunError(f"results folder {self._folder}: the writer is closed, a row of '{table}' came too late")
            self._stamp(filled)
            checked = [buffer.checker.check(row) for row in filled]
            if checked and not buffer.rows:
                buffer.due = time.monotonic() + self._flush_seconds
                self._changed.notify_all()
            buffer.rows.extend(checked)
            is_full = len(buffer.rows) >= self._flush_rows
        if is_full:
            self._flush_table(table)
        self._raise_background_error()

    def flush(self) -> None:
        """Write everything that waits; when this returns it is on the disk.

        Raises:
            RunError: it could not be written; the rows are kept.
        """
        failures = []
        for name in self._buffers:
            try:
                self._flush_table(name)
            except RunError as error:  # the other tables may lie elsewhere, or need less space
                failures.append(error)
        with self._changed:
            self._background_error = None  # whatever failed in between was tried again just now
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Take no more rows, flush, and merge small parts. A second call does nothing.

        Raises:
            RunError: rows could not be written; they are kept, and ``close`` can be called again.
        """
        if self._stopping:
            return
        with self._changed:
            self._accepting = False
        self.flush()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for name in self._buffers:
            compact_quietly(self._folder, name, _COMPACT_AT_CLOSE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunError as own_error:
            if error is None:
                raise
            error.add_note(str(own_error))  # the first failure is what the caller has to see

    def _prepare_folder(self) -> None:
        """Make sure that readers find every table with its schema, and refuse to mix schemas."""
        try:
            if self._folder.is_remote:  # where every table is there already, nothing else would be written yet
                self._folder.try_writing()
            for name, buffer in self._buffers.items():
                table_folder = self._folder / name
                table_folder.make()
                table_folder.clear_temporaries(_ABANDONED_AFTER_SECONDS)
                parts = list_parts(table_folder)
                if not parts:
                    write_part(table_folder, new_part_name(), buffer.checker.to_arrow([]))
                    continue
                with contextlib.suppress(FileNotFoundError):  # merged by another writer at this moment
                    part_version(table_folder, parts[-1])
        except OSError as error:
            raise RunError(
                f"results folder {self._folder}: cannot be written to ({reason_of(error)}); {_REMEDY} and run again"
            ) from error

    def _stamp(self, rows: list[dict[str, Any]]) -> None:
        """Record the time, always later than the row before: readers keep the last row of each key."""
        for row in rows:
            if row["recorded_at"] is None:
                self._last_recorded = max(datetime.now(UTC), self._last_recorded + _CLOCK_TICK)
                row["recorded_at"] = self._last_recorded

    def _flush_table(self, name: str) -> None:
        buffer = self._buffers[name]
        with buffer.writing:
            if buffer.doubtful is not None:
                self._write_doubtful(name, buffer, *buffer.doubtful)
            with self._changed:
                rows, buffer.rows = buffer.rows, []
            if rows:
                self._write(name, buffer, new_part_name(), rows)

    def _write_doubtful(self, name: str, buffer: _Buffer, part: str, rows: list[Row]) -> None:
        """Write a part that may be there already: under the same name, so that it is there once in any case."""
        buffer.doubtful = None
        self._write(name, buffer, part, rows)

    def _write(self, name: str, buffer: _Buffer, part: str, rows: list[Row]) -> None:
        folder = self._folder / name
        try:
            write_part(folder, part, buffer.checker.to_arrow(rows))
        except BaseException as error:
            arrived = _arrived(folder, part)
            if arrived is not True:
                self._take_back(buffer, part, rows, is_doubtful=arrived is None)
            if isinstance(error, OSError):
                raise self._not_written(name, len(rows), error) from error
            raise
        with self._changed:
            buffer.parts_written += 1
            self._changed.notify_all()

    def _take_back(self, buffer: _Buffer, part: str, rows: list[Row], is_doubtful: bool) -> None:
        with self._changed:
            if is_doubtful:
                buffer.doubtful = part, rows
            else:
                buffer.rows[:0] = rows
            buffer.due = time.monotonic() + self._flush_seconds
            self._changed.notify_all()

    def _not_written(self, name: str, rows: int, error: OSError) -> RunError:
        return RunError(
            f"results folder {self._folder / name}: cannot write ({reason_of(error)}), {rows} rows wait "
            f"in memory and are lost when the run ends; {_REMEDY}, then resume"
        )

    def _raise_background_error(self) -> None:
        with self._changed:
            error, self._background_error = self._background_error, None
        if error is not None:
            raise error

    def _flush_when_due(self) -> None:
        """A background thread: writes what has waited for long enough."""
        while True:
            with self._changed:
                while not (self._stopping or self._due_tables()):
                    waiting = [buffer.due for buffer in self._buffers.values() if buffer.is_waiting]
                    self._changed.wait(max(0.0, min(waiting) - time.monotonic()) if waiting else None)
                if self._stopping:
                    return
                due = self._due_tables()
            try:
                for name in due:
                    self._flush_table(name)
            except Exception as error:  # raised by the next call, in a thread that somebody watches
                with self._changed:
                    self._background_error = error

    def _merge_when_crowded(self) -> None:
        """The other background thread: merges the parts of a table once this writer has written many."""
        while True:
            with self._changed:
                while not (self._stopping or self._crowded_tables()):
                    self._changed.wait()
                if self._stopping:
                    return
                crowded = self._crowded_tables()
                for name in crowded:
                    self._buffers[name].parts_written = 0
            for name in crowded:
                compact_quietly(self._folder, name, _COMPACT_WHILE_WRITING // 2)

    def _due_tables(self) -> list[str]:
        now = time.monotonic()
        return [name for name, buffer in self._buffers.items() if buffer.is_waiting and buffer.due <= now]

    def _crowded_tables(self) -> list[str]:
        return [name for name, buffer in self._buffers.items() if buffer.parts_written >= _COMPACT_WHILE_WRITING]


def _arrived(folder: Folder, part: str) -> bool | None:
    """Whether a part is there although writing it failed; None: the storage does not say, or not for sure."""
    try:
        return folder.has(part) or (None if folder.is_remote else False)
    except OSError:
        return None


class _Buffer:
    """What one table waits to write.

    Attributes:
        checker: checks and converts rows.
        rows: rows that are not on the disk.
        doubtful: a part that may be on the disk or not, and its rows.
        due: when they have to be, on the monotonic clock; meaningless without rows.
        writing: held while a part is written, so that rows which could not be written return to where they were.
        parts_written: since the last compaction.
    """

    def __init__(self, checker: RowChecker) -> None:
        self.checker = checker
        self.rows: list[Row] = []
        self.doubtful: tuple[str, list[Row]] | None = None
        self.due = 0.0
        self.writing = threading.Lock()
        self.parts_written = 0

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.rows) or self.doubtful is not None
