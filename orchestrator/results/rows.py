"""Rows on their way into a table: names and types are checked where the row is written, not when the disk is."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.results.columns import FLAG, GENES, INTEGER, REAL, TEXT, TIME, Table
from orchestrator.results.schemas import TABLES

Row = list[Any]
"""One checked row: a value for each column of the table, in the order of the columns."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER_LIMIT = 2**63
_PLAIN_TYPES = frozenset({str, int, float, bool})


def find_table(name: str) -> Table:
    """The table called ``name``.

    Raises:
        UserError: there is none; the message names the tables and suggests the nearest.
    """
    if name not in TABLES:
        raise UserError(
            f"results: unknown table '{name}'{suggestion(name, TABLES)}; the tables are {', '.join(TABLES)}"
        )
    return TABLES[name]


def check_columns(table: Table, names: Iterable[str]) -> None:
    """Check that every name is a column of ``table``.

    Raises:
        UserError: one is not; the message suggests the nearest column.
    """
    known = [column.name for column in table.columns]
    for name in names:
        if name not in known:
            hint = suggestion(name, known) or f"; the columns are {', '.join(known)}"
            raise UserError(f"results table '{table.name}': unknown column '{name}'{hint}")


class RowChecker:
    """Checks and converts the rows of one table. Stateless after construction, so safe to share between threads."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._names = frozenset(column.name for column in table.columns)
        self._schema = table.schema()
        self._fields = [(column.name, _CONVERTERS[column.type], column.required) for column in table.columns]

    def check(self, values: Mapping[str, Any]) -> Row:
        """Convert one row.

        Args:
            values: column name to value. Python scalars, NumPy scalars and zero-dimensional arrays and tensors are
                taken; None, or no value, is an empty cell; NaN is an ordinary real number.

        Returns:
            One plain Python value for each column of the table.

        Raises:
            UserError: an unknown column, a missing required one, or a value of the wrong type.
        """
        if not values.keys() <= self._names:
            check_columns(self._table, values)
        row: Row = []
        for name, convert, required in self._fields:
            value = values.get(name)
            if value is not None:
                try:
                    value = convert(value)
                except _WrongValueError as error:
                    raise UserError(
                        f"results table '{self._table.name}', column '{name}': found {reprlib.repr(value)} "
                        f"({type(value).__name__}), expected {error}"
                    ) from None
            elif required:
                raise UserError(f"results table '{self._table.name}': column '{name}' is required, found no value")
            row.append(value)
        return row

    def to_arrow(self, rows: list[Row]) -> pa.Table:
        """Checked rows as an Arrow table with the table's schema."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(self._fields)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self._schema)


class _WrongValueError(Exception):
    """A converter's refusal; the message is what was expected."""


def _scalar(value: Any) -> Any:
    """Unwrap NumPy scalars and zero-dimensional arrays and tensors."""
    if type(value) in _PLAIN_TYPES:  # nearly always, and this runs for every cell
        return value
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _to_text(value: Any) -> str:
    value = _scalar(value)
    if not isinstance(value, str):
        raise _WrongValueError("text")
    # Messages of failed candidates may hold undecodable file names, which no Parquet file can hold.
    return str(value) if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _to_integer(value: Any) -> int:
    value = _scalar(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _WrongValueError("a whole number")
    if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        raise _WrongValueError("a whole number of at most 64 bits")
    return value


def _to_real(value: Any) -> float:
    value = _scalar(value)
    if not isinstance(value, (float, int)) or isinstance(value, bool):
        raise _WrongValueError("a number")
    try:
        return float(value)
    except OverflowError:
        raise _WrongValueError("a number within the range of a float") from None


def _to_flag(value: Any) -> bool:
    value = _scalar(value)
    if not isinstance(value, bool):
        raise _WrongValueError("true or false")
    return value


def _to_time(value: Any) -> int:
    """Microseconds since 1970 (UTC)."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise _WrongValueError("a datetime with a time zone")
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _to_genes(value: Any) -> list[tuple[str, str]]:
    """Genes as text: strings as they are, everything else as JSON."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise _WrongValueError("a mapping from gene names to values")
    try:
        return [
            (_to_text(name), _to_text(gene) if isinstance(gene, str) else json.dumps(_scalar(gene)))
            for name, gene in value.items()
        ]
    except (TypeError, ValueError):
        raise _WrongValueError("genes that are text, numbers, flags, or lists of these") from None


_CONVERTERS: dict[pa.DataType, Callable[[Any], Any]] = {
    TEXT: _to_text,
    INTEGER: _to_integer,
    REAL: _to_real,
    FLAG: _to_flag,
    TIME: _to_time,
    GENES: _to_genes,
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of an error line; "" if nothing is near."""
    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean '{nearest[0]}'?" if nearest else ""
