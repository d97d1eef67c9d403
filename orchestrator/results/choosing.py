"""Which rows of a table are wanted: those a condition holds for, and those no other row beats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError
from orchestrator.results.columns import INTEGER, REAL, Column, Table
from orchestrator.results.pareto import non_dominated
from orchestrator.results.rows import check_columns, suggestion

if TYPE_CHECKING:
    import duckdb

_ROW = "netsuke_row"
_DIRECTIONS = {"min": False, "max": True}
_UNKNOWN_COLUMN = re.compile(r'Referenced column "(.+?)" not found')


def guarded_connection() -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own that sees what is registered with it: no files, no network, no variables of this process."""
    import duckdb  # here, because it takes longer to load than most commands need

    connection = duckdb.connect(":memory:")
    connection.execute("SET python_enable_replacements = false; SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def one_line(error: Exception) -> str:
    """DuckDB's message without the excerpt of the query."""
    return " ".join(str(error).partition("\nLINE ")[0].split())


def rows_where(rows: pa.Table, table: Table, condition: str) -> pa.Table:
    """The rows a condition holds for, in their order.

    Args:
        rows: of the table, with all columns that the condition names.
        table: which table it is.
        condition: one boolean expression over the columns in DuckDB's dialect, such as ``parameters < 10e6``. Where it
            gives no answer (an empty cell), the row is left out.

    Raises:
        UserError: it is no such expression (a statement, an aggregate, several expressions, of another type), or names
            an unknown column; the message suggests the nearest.
    """
    import duckdb

    subject = f"results table '{table.name}', condition {condition!r}"
    with guarded_connection() as connection:
        try:
            numbered = rows.append_column(_ROW, pa.array(np.arange(rows.num_rows)))
            connection.register(table.name, numbered)
            relation = connection.view(table.name)
            expression = duckdb.SQLExpression(condition)
            chosen = relation.filter(expression)
            (kind,) = relation.select(expression).types
            if str(kind) != "BOOLEAN":
                raise UserError(f"{subject}: found a value of type {kind}, expected what is true or false of a row")
            kept = chosen.select(_ROW).to_arrow_table().column(_ROW)
        except duckdb.Error as error:
            unknown = _UNKNOWN_COLUMN.search(str(error))
            if unknown:
                check_columns(table, [unknown[1]])
            reason = "found nothing" if not condition.strip() else one_line(error)
            raise UserError(f"{subject}: {reason}; expected one expression such as loss < 0.5") from error
    return rows if len(kept) == rows.num_rows else rows.take(kept.combine_chunks().sort())


@dataclass(frozen=True)
class ColumnObjective:
    """A column to optimise, and whether larger is better."""

    column: str
    larger_is_better: bool

    @classmethod
    def parse(cls, text: str, table: Table) -> ColumnObjective:
        """Read ``column``, ``column:min`` or ``column:max``.

        Without a direction smaller is better, except for columns whose schema says otherwise.

        Raises:
            UserError: an unknown column (the nearest is suggested) or direction, or the column holds no numbers.
        """
        name, colon, direction = (part.strip() for part in text.partition(":"))
        check_columns(table, [name])
        if colon and direction not in _DIRECTIONS:
            raise UserError(
                f"results table '{table.name}': objective '{text}' ends in ':{direction}', expected :min or :max"
            )
        column = table.column(name)
        if not _is_number(column):
            known = [other.name for other in table.columns if _is_number(other)]
            hint = suggestion(name, known) or f"; the columns of numbers are {', '.join(known)}"
            raise UserError(f"results table '{table.name}': column '{name}' holds {column.type}, no numbers{hint}")
        return cls(name, _DIRECTIONS[direction] if colon else column.larger_is_better)


def front_of(rows: pa.Table, table: Table, objectives: Sequence[str]) -> pa.Table:
    """The rows that no other row dominates, best in the first objective first.

    Rows with an empty cell or NaN in an objective are on no front, nor are rows whose status is ``failed``. All copies
    of a point of the front are on it.

    Args:
        rows: of the table, with the columns of the objectives, and ``status`` where the table has that.
        table: which table it is.
        objectives: columns, each with ``:min`` or ``:max`` behind it if need be (:meth:`ColumnObjective.parse`).

    Raises:
        UserError: no objective, one that is named twice, or one that is none.
    """
    parsed = [ColumnObjective.parse(text, table) for text in objectives]
    names = [objective.column for objective in parsed]
    if not names or len(set(names)) < len(names):
        found = ", ".join(names) if names else "none"
        raise UserError(f"results table '{table.name}': found the objectives {found}, expected different columns")
    columns = [rows.column(name).cast(pa.float64()).to_numpy() for name in names]
    costs = np.stack([-values if one.larger_is_better else values for one, values in zip(parsed, columns, strict=True)])
    if "status" in rows.column_names:
        failed = pc.fill_null(pc.equal(rows.column("status"), "failed"), False)
        costs[:, failed.to_numpy()] = np.nan
    front = np.flatnonzero(non_dominated(costs.T))
    return rows.take(pa.array(front[np.lexsort(costs[::-1, front])]))


def _is_number(column: Column) -> bool:
    return column.type in (INTEGER, REAL)
