"""Compaction: many small parts of a table become one, while others go on writing and reading."""

from __future__ import annotations

import logging

import pyarrow as pa

from orchestrator.errors import RunError, UserError
from orchestrator.results.columns import SCHEMA_VERSION, Table
from orchestrator.results.parts import (
    for_each_part,
    is_merged,
    list_parts,
    new_part_name,
    part_time,
    part_version,
    read_part,
    replaced_by,
    write_part,
)
from orchestrator.results.rows import find_table
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder, Place, StillAlone, folder_at, reason_of

SMALL_PART_BYTES = 8 * 2**20
"""Parts of this size or more are left alone: merging them again and again would cost more than it saves."""

_logger = logging.getLogger(__name__)


def compact(folder: Place, minimum_parts: int = 8) -> dict[str, int]:
    """Merge the small parts of every table of a results folder.

    Args:
        folder: the results folder, or its URL.
        minimum_parts: tables with fewer small parts are left alone.

    Returns:
        For each table, how many parts were merged into one.

    Raises:
        UserError: a part has another major schema version.
        RunError: a part is damaged, or the merged part could not be written (the table is as it was).
    """
    return {name: compact_table(folder, name, minimum_parts) for name in TABLES}


def compact_table(folder: Place, name: str, minimum_parts: int = 8) -> int:
    """Merge the small parts of one table.

    The merged part appears first and names its inputs, then these are deleted; whoever is interrupted in between leaves
    a table that readers understand and that the next compaction cleans up. All rows are kept, in order. One process
    compacts a table at a time (:mod:`orchestrator.results.storage` says how that is made sure of); where another one
    does, or where a local file system has no locks, nothing happens.

    Args:
        folder: the results folder, or its URL.
        name: the table.
        minimum_parts: with fewer small parts nothing happens.

    Returns:
        How many parts were merged into one; 0 if nothing happened.

    Raises:
        UserError: an unknown table, or a part has another major schema version.
        RunError: a part is damaged, or the merged part could not be written (the table is as it was).
    """
    table = find_table(name)
    store = folder_at(folder)
    table_folder = store / name
    try:
        names = list_parts(table_folder)
        if len(names) < 2 or (len(names) < minimum_parts and not any(map(is_merged, names))):
            return 0
        with store.sole_merger(name) as still_alone:
            return 0 if still_alone is None else _merge(table_folder, table, max(minimum_parts, 2), still_alone)
    except OSError as error:
        raise RunError(
            f"results folder {table_folder}: cannot merge parts ({reason_of(error)}); no row is lost"
        ) from error


def _merge(table_folder: Folder, table: Table, minimum_parts: int, still_alone: StillAlone) -> int:
    """What :func:`compact_table` does while it has the right to."""
    _delete_replaced_parts(table_folder)
    names = list_parts(table_folder)
    mergeable = for_each_part(table_folder, names, lambda name: _is_mergeable(table_folder, name))
    inputs = [name for name, is_mergeable in zip(names, mergeable, strict=True) if is_mergeable]
    if len(inputs) < minimum_parts:
        return 0
    rows = pa.concat_tables(for_each_part(table_folder, inputs, lambda name: read_part(table_folder, name, table)))
    if not still_alone():
        return 0
    # The newest input's time keeps the order of the parts' names the order of their rows.
    write_part(table_folder, new_part_name(part_time(inputs[-1]), merged=True), rows, inputs)
    for_each_part(table_folder, inputs, table_folder.delete)
    return len(inputs)


def compact_quietly(folder: Place, name: str, minimum_parts: int) -> None:
    """:func:`compact_table`, where a failure is worth a warning but not the end of a run: all rows are in place."""
    try:
        compact_table(folder, name, minimum_parts)
    except (RunError, UserError) as error:
        _logger.warning("%s", error)


def _is_mergeable(table_folder: Folder, name: str) -> bool:
    """Small, and without columns that this version of the schema does not know and would lose."""
    major, minor = (int(number) for number in SCHEMA_VERSION.split("."))
    return table_folder.size(name) < SMALL_PART_BYTES and part_version(table_folder, name) <= (major, minor)


def _delete_replaced_parts(table_folder: Folder) -> None:
    """Finish what a compaction that was killed left undone."""
    names = list_parts(table_folder)
    replaced = replaced_by(table_folder, names)
    for name in names:
        if name in replaced:
            table_folder.delete(name)
