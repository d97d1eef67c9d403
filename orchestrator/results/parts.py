"""Parts: the immutable Parquet files a table consists of, ``<folder>/<table>/part-<time_ns>-<uuid8>.parquet``.

A part appears once it is complete and safe (see :mod:`orchestrator.results.storage`), so whoever lists a table sees
whole parts only. A part that replaces smaller ones ends in ``-merged`` and names them in its metadata; as long as one
of those still exists, readers leave it out. No row is ever counted twice.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import RunError, UserError
from orchestrator.results.columns import SCHEMA_VERSION, Table
from orchestrator.results.storage import Folder, Place, folder_at, reason_of

_MERGED_SUFFIX = "-merged"
_MERGED_KEY = b"netsuke_merged_parts"
_VERSION_KEY = b"netsuke_schema_version"
_READ_ATTEMPTS = 20
_REQUESTS_AT_ONCE = 16

Answer = TypeVar("Answer")


def new_part_name(time_ns: int | None = None, merged: bool = False) -> str:
    """A name nobody else uses; names sort by time.

    Args:
        time_ns: nanoseconds since 1970; None: now.
        merged: whether the part takes the place of others.
    """
    stamp = time.time_ns() if time_ns is None else time_ns
    return f"part-{stamp:019d}-{uuid.uuid4().hex[:8]}{_MERGED_SUFFIX if merged else ''}.parquet"


def list_parts(table_folder: Place) -> list[str]:
    """Names of the visible parts of a table, oldest first; none if the folder does not exist."""
    names = folder_at(table_folder).names()
    return [name for name in sorted(names) if name.startswith("part-") and name.endswith(".parquet")]


def part_time(name: str) -> int:
    """The nanoseconds since 1970 in a part's name."""
    return int(name.split("-")[1])


def is_merged(name: str) -> bool:
    """Whether a part took the place of others."""
    return name.endswith(f"{_MERGED_SUFFIX}.parquet")


def write_part(table_folder: Place, name: str, rows: pa.Table, replaces: Sequence[str] = ()) -> None:
    """Write a part so that it appears at once and whole.

    Args:
        table_folder: an existing folder.
        name: from :func:`new_part_name`.
        rows: with the table's schema.
        replaces: names of the parts whose rows these are, if any.

    Raises:
        OSError: it could not be written. On a local disk nothing is left behind; a remote storage may have taken it
            without being able to say so.
    """
    if replaces:
        rows = rows.replace_schema_metadata({**rows.schema.metadata, _MERGED_KEY: json.dumps(list(replaces))})
    image = pa.BufferOutputStream()
    pq.write_table(rows, image, compression="zstd")
    folder_at(table_folder).write(name, image.getvalue())


def part_version(table_folder: Folder, name: str) -> tuple[int, int]:
    """The (major, minor) schema version a part was written with.

    Raises:
        UserError: another major version, or no netsuke table.
        RunError: the file is damaged.
        FileNotFoundError: the part is gone.
    """
    with _open_part(table_folder, name) as file:
        return _check_version(table_folder, name, file.schema_arrow)


def replaced_by(table_folder: Folder, names: Sequence[str]) -> frozenset[str]:
    """Names of the parts whose rows are also in one of the parts ``names``, which took their place.

    Raises:
        RunError: a file is damaged.
        FileNotFoundError: a part is gone.
    """
    replaced: set[str] = set()
    for name in filter(is_merged, names):
        with _open_part(table_folder, name) as file:
            replaced.update(json.loads((file.schema_arrow.metadata or {}).get(_MERGED_KEY, b"[]")))
    return frozenset(replaced)


def read_part(table_folder: Folder, name: str, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one part.

    Args:
        table_folder: the table's folder.
        name: the part.
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
    with _open_part(table_folder, name) as file:
        found = file.schema_arrow
        _check_version(table_folder, name, found)
        rows = file.read(columns=[name for name in schema.names if name in found.names])
    return _fit(rows, schema)


def for_each_part(folder: Folder, names: Sequence[str], function: Callable[[str], Answer]) -> list[Answer]:
    """What a function of a part's name gives for each of ``names``; several at once where requests take a while."""
    if not folder.is_remote or len(names) < 2:
        return [function(name) for name in names]
    with ThreadPoolExecutor(min(_REQUESTS_AT_ONCE, len(names))) as pool:
        return list(pool.map(function, names))


def selected_schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    """The table's schema, cut down to ``columns`` (None: all), in the table's order."""
    schema = table.schema()
    if columns is None:
        return schema
    wanted = set(columns)
    return pa.schema([field for field in schema if field.name in wanted], metadata=schema.metadata)


def read_parts(table_folder: Place, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a table as of now, each once, oldest part first, while others write and merge parts.

    Args:
        table_folder: need not exist (no rows).
        table: which table it is.
        columns: names to read; None: all.

    Raises:
        UserError: a part has another major schema version, or is no netsuke table.
        RunError: a part is damaged, or parts kept disappearing.
    """
    folder = folder_at(table_folder)

    def read(names: Sequence[str]) -> pa.Table:
        replaced = replaced_by(folder, names)
        kept = [name for name in names if name not in replaced]
        tables = for_each_part(folder, kept, lambda name: read_part(folder, name, table, columns))
        return pa.concat_tables([selected_schema(table, columns).empty_table(), *tables])

    return _on_settled_parts(folder, read, cannot="read", were="read")


def copy_parts(source: Folder, target: Folder) -> int:
    """Copy the parts of a table as they are, under the same names, while others write and merge there.

    Args:
        source: the table's folder; need not exist (no parts).
        target: of the same table, made if needed; parts that it has are not copied again.

    Returns:
        How many parts were copied.

    Raises:
        RunError: a part cannot be read or written, or parts kept disappearing.
    """

    def copy(names: Sequence[str]) -> int:
        target.make()
        missing = sorted(set(names) - set(list_parts(target)))
        for_each_part(source, missing, lambda name: _copy_part(source, target, name))
        return len(missing)

    return _on_settled_parts(source, copy, cannot=f"copied to {target}", were="copied")


def _on_settled_parts(folder: Folder, work: Callable[[Sequence[str]], Answer], cannot: str, were: str) -> Answer:
    """Work on the parts of a table; anew where a merge takes one away meanwhile.

    Args:
        folder: of the table.
        work: given the names of the parts.
        cannot: what failed, for an error, such as ``"read"``.
        were: the same in the past, such as ``"read"``.

    Raises:
        RunError: a part cannot be worked on, or parts kept disappearing.
    """
    for attempt in range(_READ_ATTEMPTS):
        try:
            names = _settled_listing(folder)
            if names is not None:
                return work(names)
        except FileNotFoundError:
            pass  # merged since it was listed: list again
        except OSError as error:
            raise RunError(f"results: {folder} cannot be {cannot} ({reason_of(error)})") from error
        time.sleep(0.005 * attempt)
    raise RunError(f"results: the parts of {folder} kept changing while they were {were}; try again")


def _copy_part(source: Folder, target: Folder, name: str) -> None:
    with source.open(name) as file:
        target.write(name, file.read_buffer())


def _settled_listing(folder: Folder) -> list[str] | None:
    """A listing that no merge happened within, or None.

    Listing a folder is no snapshot: a part may be deleted before it is reached while the one that replaces it appears
    behind the reader's back. A second listing that lacks a part or shows a new merged part gives that away.
    """
    first, second = list_parts(folder), list_parts(folder)
    vanished = set(first) - set(second)
    return None if vanished or any(map(is_merged, set(second) - set(first))) else first


@contextmanager
def _open_part(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """A part to read from; whatever goes wrong within is put down to the file, or to its having been merged away."""
    try:
        with folder.open(name) as source, pq.ParquetFile(source, pre_buffer=folder.is_remote) as file:
            yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        if not folder.has(name):  # unlike a disk, an object store forgets a file that is still open
            raise FileNotFoundError(f"{folder}/{name}") from error
        raise RunError(
            f"results: {folder}/{name} cannot be read ({reason_of(error)}); move it away to read the rest"
        ) from error


def _check_version(folder: Folder, name: str, schema: pa.Schema) -> tuple[int, int]:
    text = (schema.metadata or {}).get(_VERSION_KEY, b"").decode("utf-8", "replace")
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise UserError(f"results: {folder}/{name} is no netsuke table (found no schema version); move it away")
    if int(major) != int(SCHEMA_VERSION.split(".")[0]):
        newer = int(major) > int(SCHEMA_VERSION.split(".")[0])
        advice = "upgrade netsuke" if newer else "read it with the netsuke that wrote it"
        raise UserError(
            f"results: {folder}/{name} has the {'newer' if newer else 'older'} schema version {text}, "
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
