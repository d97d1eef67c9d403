"""The reader: tables as of now, each measurement once, while the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.results.parts import read_parts
from orchestrator.results.rows import check_columns, find_table
from orchestrator.results.schemas import FLAG, INTEGER, TABLES, Table
from orchestrator.results.superseded import COLUMNS_OF_RUNS, RECORDING_STAGES, began, without_superseded

if TYPE_CHECKING:
    import pandas as pd

_ORDER = "recorded_at"


def open_results(folder: Path) -> Results:
    """The results of a run, finished or not.

    Args:
        folder: the results folder (``RUN/results``).

    Raises:
        UserError: there is no results folder at that place.
    """
    folder = Path(folder)
    if not any((folder / name).is_dir() for name in TABLES):
        found = "a folder without tables" if folder.is_dir() else "no such folder"
        raise UserError(f"results: {folder} is {found}, expected the results folder of a run (RUN/results)")
    return Results(folder)


class Results:
    """The tables of one results folder. Every call reads the disk anew, so it shows what is there now.

    Where a measurement was recorded more than once, the row recorded last is the one that counts, and what a stage
    recorded under settings that have changed since does not count (see :mod:`orchestrator.results.superseded`). Nothing
    is ever written. Safe to share between threads.

    Every method may also raise ``UserError`` for tables of another major schema version and ``RunError`` for a damaged
    part; both messages name the file.

    Args:
        folder: the results folder; use :func:`open_results`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table, oldest row first.

        Args:
            name: the table.
            columns: which columns, in this order; None: all. Reading few is much faster.

        Raises:
            UserError: an unknown table or column.
        """
        table = find_table(name)
        if columns is not None:
            check_columns(table, columns)
        deciding = [RECORDING_STAGES[name][0]] if name in RECORDING_STAGES else []
        needed = None if columns is None else [*columns, *table.key, *deciding, _ORDER]
        rows = _keep_last(read_parts(self._folder / name, table, needed), table)
        if deciding:
            rows = without_superseded(rows, name, began(self.table("runs", COLUMNS_OF_RUNS)))
        return rows if columns is None else rows.select(list(columns))

    def frame(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One table as a pandas frame; whole numbers and flags keep their type where cells are empty (``Int64``).

        Args:
            name: the table.
            columns: which columns, in this order; None: all.

        Raises:
            UserError: an unknown table or column.
        """
        import pandas as pd  # here, because it takes longer to load than most commands need

        types = {INTEGER: pd.Int64Dtype(), FLAG: pd.BooleanDtype()}
        frame: pd.DataFrame = self.table(name, columns).to_pandas(types_mapper=types.get)
        return frame

    def sql(self, query: str) -> pa.Table:
        """The answer of one SELECT (DuckDB's dialect) over the tables, which are there under their names.

        Raises:
            UserError: the query is wrong, or is no SELECT.
        """
        import duckdb  # here, because it takes longer to load than most commands need

        with duckdb.connect(":memory:") as connection:
            # Only the tables: no files, no network, no variables of this process.
            connection.execute("SET python_enable_replacements = false; SET enable_external_access = false")
            connection.execute("SET TimeZone = 'UTC'")
            try:
                statements = connection.extract_statements(query)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise UserError("results: a query has to be one SELECT statement; results are never written by SQL")
                for name in connection.get_table_names(query):
                    if name.lower() in TABLES:
                        connection.register(name.lower(), self.table(name.lower()))
                return connection.sql(query).to_arrow_table()
            except duckdb.Error as error:
                reason = " ".join(str(error).partition("\nLINE ")[0].split())
                raise UserError(f"results: the query failed: {reason}") from error

    def counts(self) -> dict[str, int]:
        """For each table, how many rows it has."""
        return {name: self.table(name, [_ORDER]).num_rows for name in TABLES}


def _keep_last(rows: pa.Table, table: Table) -> pa.Table:
    """Rows in the order in which they were recorded; of those with equal keys (empty cells are equal) the last."""
    recorded = rows.column(_ORDER).to_numpy()
    if (recorded[1:] < recorded[:-1]).any():
        rows = rows.take(pa.array(np.argsort(recorded, kind="stable")))
    if not table.key:
        return rows
    numbered = rows.select(table.key).append_column("row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(table.key)).aggregate([("row", "max")]).column("row_max")
    return rows if len(last) == rows.num_rows else rows.take(last.sort())
