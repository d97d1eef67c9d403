"""The writer: rows in, parts out, at most a moment later."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.errors import RunError, UserError
from orchestrator.results.compaction import compact_quietly
from orchestrator.results.parts import list_parts, new_part_name, part_version, remove_abandoned_temporaries, write_part
from orchestrator.results.rows import Row, RowChecker, find_table
from orchestrator.results.schemas import TABLES

_ABANDONED_AFTER_SECONDS = 600.0
_COMPACT_AT_CLOSE = 8
_COMPACT_WHILE_WRITING = 64
_CLOCK_TICK = timedelta(microseconds=1)


class ResultsWriter:
    """Writes the rows of one run into the tables of a results folder.

    Use it as a context manager. Rows are buffered; a part appears on the disk once ``flush_rows`` rows of a table wait,
    or ``flush_seconds`` after the first of them was appended, so a writer that is killed loses what came after the last
    flush and nothing else. Any number of threads may share a writer, and any number of writers (in any process) may
    write to one folder.

    When the disk is full no row is lost: they stay in memory, and the next call (``append`` included, after it took its
    row) raises a ``RunError`` that says what to do. Flushing goes on being tried.

    Args:
        folder: the results folder; made if needed, with a folder and at least one part for every table.
        run_id: written into every row.
        flush_rows: rows of a table that make a part at once.
        flush_seconds: how long a row may wait.

    Raises:
        UserError: a nonsensical argument, or the folder holds tables of another major schema version.
        RunError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, run_id: str, flush_rows: int = 1000, flush_seconds: float = 2.0) -> None:
        if flush_rows < 1:
            raise UserError(f"flush_rows: found {flush_rows}, expected at least 1")
        if not flush_seconds > 0:
            raise UserError(f"flush_seconds: found {flush_seconds}, expected a positive number of seconds")
        self._folder = Path(folder)
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
        self._flusher = threading.Thread(target=self._flush_when_due, name="results-flusher", daemon=True)
        self._flusher.start()

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
                self._changed.notify()
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
            self._changed.notify()
        self._flusher.join()
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
            for name, buffer in self._buffers.items():
                table_folder = self._folder / name
                table_folder.mkdir(parents=True, exist_ok=True)
                remove_abandoned_temporaries(table_folder, _ABANDONED_AFTER_SECONDS)
                parts = list_parts(table_folder)
                if not parts:
                    write_part(table_folder, new_part_name(), buffer.checker.to_arrow([]))
                    continue
                with contextlib.suppress(FileNotFoundError):  # merged by another writer at this moment
                    part_version(parts[-1])
        except OSError as error:
            raise RunError(
                f"results folder {self._folder}: cannot be written to ({error.strerror or error}); "
                "free space or correct the permissions and run again"
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
            with self._changed:
                rows, buffer.rows = buffer.rows, []
            if not rows:
                return
            part = new_part_name()
            try:
                write_part(self._folder / name, part, buffer.checker.to_arrow(rows))
            except BaseException as error:
                if not (self._folder / name / part).exists():
                    self._take_back(buffer, rows)
                if isinstance(error, OSError):
                    raise self._not_written(name, len(rows), error) from error
                raise
            with self._changed:
                buffer.parts_written += 1
                self._changed.notify()

    def _take_back(self, buffer: _Buffer, rows: list[Row]) -> None:
        with self._changed:
            buffer.rows[:0] = rows
            buffer.due = time.monotonic() + self._flush_seconds
            self._changed.notify()

    def _not_written(self, name: str, rows: int, error: OSError) -> RunError:
        return RunError(
            f"results folder {self._folder / name}: cannot write ({error.strerror or error}), {rows} rows wait "
            "in memory and are lost if the run is killed; free space there (or correct its permissions), then resume"
        )

    def _raise_background_error(self) -> None:
        with self._changed:
            error, self._background_error = self._background_error, None
        if error is not None:
            raise error

    def _flush_when_due(self) -> None:
        """The background thread: writes what has waited for long enough, and merges parts when there are many."""
        while True:
            with self._changed:
                while not (self._stopping or self._due_tables() or self._crowded_tables()):
                    waiting = [buffer.due for buffer in self._buffers.values() if buffer.rows]
                    self._changed.wait(max(0.0, min(waiting) - time.monotonic()) if waiting else None)
                if self._stopping:
                    return
                due, crowded = self._due_tables(), self._crowded_tables()
            try:
                for name in due:
                    self._flush_table(name)
            except Exception as error:  # raised by the next call, in a thread that somebody watches
                with self._changed:
                    self._background_error = error
            for name in crowded:
                self._buffers[name].parts_written = 0
                compact_quietly(self._folder, name, _COMPACT_WHILE_WRITING // 2)

    def _due_tables(self) -> list[str]:
        now = time.monotonic()
        return [name for name, buffer in self._buffers.items() if buffer.rows and buffer.due <= now]

    def _crowded_tables(self) -> list[str]:
        return [name for name, buffer in self._buffers.items() if buffer.parts_written >= _COMPACT_WHILE_WRITING]


class _Buffer:
    """What one table waits to write.

    Attributes:
        checker: checks and converts rows.
        rows: rows that are not on the disk.
        due: when they have to be, on the monotonic clock; meaningless without rows.
        writing: held while a part is written, so that rows which could not be written return to where they were.
        parts_written: since the last compaction.
    """

    def __init__(self, checker: RowChecker) -> None:
        self.checker = checker
        self.rows: list[Row] = []
        self.due = 0.0
        self.writing = threading.Lock()
        self.parts_written = 0
