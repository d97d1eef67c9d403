"""What tables are made of: columns with their types, units and meanings.

A column never changes its meaning. Adding a column raises the minor part of :data:`SCHEMA_VERSION`, anything else the
major part; readers of a newer major version refuse with a clear message instead of guessing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = "1.6"

TEXT = pa.string()
INTEGER = pa.int64()
REAL = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
GENES = pa.map_(pa.string(), pa.string())


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, unit ("" where it has none), meaning, and whether more of it is better."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    required: bool = False
    larger_is_better: bool = False

    def metadata(self) -> dict[str, str]:
        """What travels with the column in every file."""
        better = {"better": "larger"} if self.larger_is_better else {}
        return {"unit": self.unit, "description": self.description, **better}


@dataclass(frozen=True)
class Table:
    """One table: what a row is, and its columns.

    Attributes:
        name: also the folder's name below ``results/``.
        row: what one row stands for.
        columns: in the order in which they are shown.
        key: columns that identify a measurement; where a measurement was recorded twice (a resumed run repeats what
            was not saved), readers keep the last row of each key. Empty: every row counts.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """The column called ``name``, which must exist."""
        return next(column for column in self.columns if column.name == name)

    def schema(self) -> pa.Schema:
        """The Arrow schema, with unit and description as field metadata and the version as schema metadata."""
        fields = [
            pa.field(
                column.name,
                column.type,
                nullable=not column.required,
                metadata=column.metadata(),
            )
            for column in self.columns
        ]
        return pa.schema(fields, metadata={"netsuke_table": self.name, "netsuke_schema_version": SCHEMA_VERSION})
