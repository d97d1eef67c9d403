"""Compaction: many small parts of a table become one, while others go on writing and reading."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from orchestrator.errors import RunError, UserError
from orchestrator.results.parts import list_parts, new_part_name, part_version, read_part, replaced_by, write_part
from orchestrator.results.rows import find_table
from orchestrator.results.schemas import SCHEMA_VERSION, TABLES

SMALL_PART_BYTES = 8 * 2**20
"""Parts of this size or more are left alone: merging them again and again would cost more than it saves."""

_logger = logging.getLogger(__name__)


def compact(folder: Path, minimum_parts: int = 8) -> dict[str, int]:
    """Merge the small parts of every table of a results folder.

    Args:
        folder: the results folder.
        minimum_parts: tables with fewer small parts are left alone.

    Returns:
        For each table, how many parts were merged into one.

    Raises:
        UserError: a part has another major schema version.
        RunError: a part is damaged, or the merged part could not be written (the table is as it was).
    """
    return {name: compact_table(folder, name, minimum_parts) for name in TABLES}


def compact_table(folder: Path, name: str, minimum_parts: int = 8) -> int:
    """Merge the small parts of one table.

    The merged part appears first and names its inputs, then these are deleted; whoever is interrupted in between leaves
    a table that readers understand and that the next compaction cleans up. All rows are kept, in order. One process
    compacts a table at a time; where another one does, or where the file system has no locks, nothing happens.

    Args:
        folder: the results folder.
        name: the table.
        minimum_parts: with fewer small parts nothing happens.

    Returns:
        How many parts were merged into one; 0 if nothing happened.

    Raises:
        UserError: an unknown table, or a part has another major schema version.
        RunError: a part is damaged, or the merged part could not be written (the table is as it was).
    """
    table = find_table(name)
    table_folder = folder / name
    if len(list_parts(table_folder)) < 2:
        return 0
    try:
        with _sole_compactor(folder / f".{name}.compaction.lock") as sole:
            if not sole:
                return 0
            _delete_replaced_parts(table_folder)
            inputs = [path for path in list_parts(table_folder) if _is_mergeable(path)]
            if len(inputs) < max(minimum_parts, 2):
                return 0
            rows = pa.concat_tables([read_part(path, table) for path in inputs])
            # The newest input's time keeps the order of the parts' names the order of their rows.
            newest = int(inputs[-1].name.split("-")[1])
            write_part(table_folder, new_part_name(newest, merged=True), rows, [path.name for path in inputs])
            for path in inputs:
                path.unlink(missing_ok=True)
            return len(inputs)
    except OSError as error:
        raise RunError(
            f"results folder {table_folder}: cannot merge parts ({error.strerror or error}); no row is lost"
        ) from error


def compact_quietly(folder: Path, name: str, minimum_parts: int) -> None:
    """:func:`compact_table`, where a failure is worth a warning but not the end of a run: all rows are in place."""
    try:
        compact_table(folder, name, minimum_parts)
    except (RunError, UserError) as error:
        _logger.warning("%s", error)


def _is_mergeable(path: Path) -> bool:
    """Small, and without columns that this version of the schema does not know and would lose."""
    major, minor = (int(number) for number in SCHEMA_VERSION.split("."))
    return path.stat().st_size < SMALL_PART_BYTES and part_version(path) <= (major, minor)


def _delete_replaced_parts(table_folder: Path) -> None:
    """Finish what a compaction that was killed left undone."""
    paths = list_parts(table_folder)
    replaced = replaced_by(paths)
    for path in paths:
        if path.name in replaced:
            path.unlink(missing_ok=True)


@contextmanager
def _sole_compactor(lock_file: Path) -> Iterator[bool]:
    """Whether this process may compact; the lock lies outside the table's folder, where nobody looks for parts."""
    with lock_file.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
