"""Parts: the immutable Parquet files a table consists of, ``<folder>/<table>/part-<time_ns>-<uuid8>.parquet``.

A part is written under a hidden name in its own folder and renamed once it is complete and on the disk, so whoever
lists a table sees whole parts only. A part that replaces smaller ones ends in ``-merged`` and names them in its
metadata; as long as one of those still exists, readers leave it out. No row is ever counted twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import RunError, UserError
from orchestrator.results.schemas import SCHEMA_VERSION, Table

_MERGED_SUFFIX = "-merged"
_MERGED_KEY = b"netsuke_merged_parts"
_VERSION_KEY = b"netsuke_schema_version"
_READ_ATTEMPTS = 20


def new_part_name(time_ns: int | None = None, merged: bool = False) -> str:
    """A name nobody else uses; names sort by time.

    Args:
        time_ns: nanoseconds since 1970; None: now.
        merged: whether the part takes the place of others.
    """
    stamp = time.time_ns() if time_ns is None else time_ns
    return f"part-{stamp:019d}-{uuid.uuid4().hex[:8]}{_MERGED_SUFFIX if merged else ''}.parquet"


def list_parts(table_folder: Path) -> list[Path]:
    """The visible parts of a table, oldest first; none if the folder does not exist."""
    try:
        names = [entry.name for entry in os.scandir(table_folder)]
    except FileNotFoundError:
        return []
    return [table_folder / name for name in sorted(names) if name.startswith("part-") and name.endswith(".parquet")]


def write_part(table_folder: Path, name: str, rows: pa.Table, replaces: Sequence[str] = ()) -> Path:
    """Write a part so that it appears at once and whole.

    Args:
        table_folder: an existing folder.
        name: from :func:`new_part_name`.
        rows: with the table's schema.
        replaces: names of the parts whose rows these are, if any.

    Returns:
        The part's path.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    if replaces:
        rows = rows.replace_schema_metadata({**rows.schema.metadata, _MERGED_KEY: json.dumps(list(replaces))})
    image = pa.BufferOutputStream()
    pq.write_table(rows, image, compression="zstd")
    path = table_folder / name
    temporary = table_folder / f".{name}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(image.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


def remove_abandoned_temporaries(table_folder: Path, older_than_seconds: float) -> None:
    """Delete what writers that were killed in the middle of a part left behind."""
    for path in table_folder.glob(".part-*.tmp"):
        # Another writer may be cleaning as well.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()


def part_version(path: Path) -> tuple[int, int]:
    """The (major, minor) schema version a part was written with.

    Raises:
        UserError: another major version, or no netsuke table.
        RunError: the file is damaged.
        FileNotFoundError: the part is gone.
    """
    with _open_part(path) as file:
        return _check_version(path, file.schema_arrow)


def replaced_by(paths: Sequence[Path]) -> frozenset[str]:
    """Names of the parts whose rows are also in one of ``paths``, which took their place.

    Raises:
        RunError: a file is damaged.
        FileNotFoundError: a part is gone.
    """
    names: set[str] = set()
    for path in paths:
        if path.stem.endswith(_MERGED_SUFFIX):
            with _open_part(path) as file:
                names.update(json.loads((file.schema_arrow.metadata or {}).get(_MERGED_KEY, b"[]")))
    return frozenset(names)


def read_part(path: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one part.

    Args:
        path: the part.
        table: the table it belongs to.
        columns: names to read; None: all.

    Returns:
        The rows with the columns of this version of the schema; those the part lacks are empty.

    Raises:
        UserError: another major schema version, or no netsuke table.
        RunError: the file is damaged.
        FileNotFoundError: the part is gone (merged into another one).
    """
    schema = selected_schema(table, columns)
    with _open_part(path) as file:
        found = file.schema_arrow
        _check_version(path, found)
        try:
            rows = file.read(columns=[name for name in schema.names if name in found.names])
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from error
    return _fit(rows, schema)


def selected_schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    """The table's schema, cut down to ``columns`` (None: all), in the table's order."""
    schema = table.schema()
    if columns is None:
        return schema
    wanted = set(columns)
    return pa.schema([field for field in schema if field.name in wanted], metadata=schema.metadata)


def read_parts(table_folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a table as of now, each once, oldest part first, while others write and merge parts.

    Args:
        table_folder: need not exist (no rows).
        table: which table it is.
        columns: names to read; None: all.

    Raises:
        UserError: a part has another major schema version, or is no netsuke table.
        RunError: a part is damaged, or parts kept disappearing.
    """
    for attempt in range(_READ_ATTEMPTS):
        paths = _settled_listing(table_folder)
        if paths is not None:
            try:
                replaced = replaced_by(paths)
                tables = [read_part(path, table, columns) for path in paths if path.name not in replaced]
                return pa.concat_tables([selected_schema(table, columns).empty_table(), *tables])
            except FileNotFoundError:
                pass  # merged since it was listed: list again
        time.sleep(0.005 * attempt)
    raise RunError(f"results: the parts of {table_folder} kept changing while they were read; try again")


def _settled_listing(table_folder: Path) -> list[Path] | None:
    """A listing that no merge happened within, or None.

    Listing a folder is no snapshot: a part may be deleted before it is reached while the one that replaces it appears
    behind the reader's back. A second listing that lacks a part or shows a new merged part gives that away.
    """
    first, second = list_parts(table_folder), list_parts(table_folder)
    appeared = set(second) - set(first)
    vanished = set(first) - set(second)
    return None if vanished or any(path.stem.endswith(_MERGED_SUFFIX) for path in appeared) else first


def _open_part(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())
    return RunError(f"results: {path} cannot be read ({reason}); move it away to read the rest")


def _check_version(path: Path, schema: pa.Schema) -> tuple[int, int]:
    text = (schema.metadata or {}).get(_VERSION_KEY, b"").decode("utf-8", "replace")
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise UserError(f"results: {path} is no netsuke table (found no schema version); move it away")
    if int(major) != int(SCHEMA_VERSION.split(".")[0]):
        newer = int(major) > int(SCHEMA_VERSION.split(".")[0])
        advice = "upgrade netsuke" if newer else "read it with the netsuke that wrote it"
        raise UserError(
            f"results: {path} has the {'newer' if newer else 'older'} schema version {text}, "
            f"expected {SCHEMA_VERSION}; {advice}"
        )
    return int(major), int(minor)


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give rows of an older or newer minor version exactly the columns of ``schema``."""
    if rows.schema.equals(schema):
        return pa.Table.from_arrays(rows.columns, schema=schema)
    arrays = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
