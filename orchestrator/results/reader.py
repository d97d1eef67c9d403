"""The reader: tables as of now, each measurement once, while the run goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestrator.errors import RunError, UserError
from orchestrator.results.choosing import ColumnObjective, front_of, guarded_connection, one_line, rows_where
from orchestrator.results.columns import FLAG, INTEGER, Table
from orchestrator.results.parts import read_parts
from orchestrator.results.place import has_tables, place_of
from orchestrator.results.rows import check_columns, find_table
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder, Place, folder_at, reason_of
from orchestrator.results.superseded import COLUMNS_OF_RUNS, RECORDING_STAGES, began, without_superseded

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

_ORDER = "recorded_at"


def open_results(folder: Place) -> Results:
    """The results of a run, finished or not, whose results folder is known; :func:`open` looks for it.

    Args:
        folder: the results folder (``RUN/results``), or its URL.

    Raises:
        UserError: there is no results folder at that place.
        RunError: the storage behind the URL cannot be reached.
    """
    store = folder_at(folder)
    try:
        if not has_tables(store):
            found = "a folder without tables" if store.exists() else "no such folder"
            raise UserError(f"results: {store} is {found}, expected the results folder of a run (RUN/results)")
    except OSError as error:
        raise RunError(f"results: {store} cannot be reached ({reason_of(error)})") from error
    return Results(store)


def open(run: Place) -> Results:
    """The results of a run, finished or not, for pandas, Arrow and DuckDB.

    ``import orchestrator.results`` and then::

        results = orchestrator.results.open("runs/quickstart")
        results.frame("models")                                         # pandas
        results.table("evaluations", where="parameters < 10e6")         # Arrow
        results.relation("evaluations").aggregate("strategy, min(loss)")  # DuckDB
        results.front("evaluations", ["loss", "latency_ms"])            # what nothing beats, as Arrow

    Args:
        run: a run or sweep folder (which remembers where its tables lie), or the results folder in it, or one that
            lies elsewhere; a path, or a URL such as ``s3://bucket/run/results`` (see
            :func:`orchestrator.results.storage.folder_at`).

    Raises:
        UserError: there are no results at that place.
        RunError: the storage behind the URL cannot be reached.
    """
    place = tables = folder_at(run)
    try:
        # First where a run's own tables are: its folder has folders of the names of tables (training, models).
        tables = place_of(place)
        return open_results(tables if has_tables(tables) or place.has("run.json") else place)
    except OSError as error:
        raise RunError(f"results: {tables} cannot be reached ({reason_of(error)})") from error


class Results:
    """The tables of one results folder. Every call reads the storage anew, so it shows what is there now.

    Where a measurement was recorded more than once, the row recorded last is the one that counts, and what a stage
    recorded under settings that have changed since does not count (see :mod:`orchestrator.results.superseded`). Nothing
    is ever written. Safe to share between threads.

    Every method may also raise ``UserError`` for tables of another major schema version and ``RunError`` for a damaged
    part; both messages name the file.

    Args:
        folder: the results folder; use :func:`open` or :func:`open_results`.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._connecting = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def table(self, name: str, columns: Sequence[str] | None = None, where: str = "") -> pa.Table:
        """One table as an Arrow table, oldest row first.

        Args:
            name: the table.
            columns: which columns, in this order; None: all. Reading few is much faster.
            where: only the rows this holds for: one boolean expression over the table's columns in DuckDB's dialect,
                such as ``parameters < 10e6 AND strategy = 'nsga2'``; empty: all rows.

        Raises:
            UserError: an unknown table or column, or ``where`` is no such expression.
        """
        table = find_table(name)
        if columns is not None:
            check_columns(table, columns)
        if where:
            rows = rows_where(self.table(name), table, where)
            return rows if columns is None else rows.select(list(columns))
        deciding = [RECORDING_STAGES[name][0]] if name in RECORDING_STAGES else []
        needed = None if columns is None else [*columns, *table.key, *deciding, _ORDER]
        rows = _keep_last(read_parts(self._folder / name, table, needed), table)
        if deciding:
            rows = without_superseded(rows, name, began(self.table("runs", COLUMNS_OF_RUNS)))
        return rows if columns is None else rows.select(list(columns))

    def front(
        self, name: str, objectives: Sequence[str], where: str = "", columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of a table that no other row beats in all objectives, best in the first objective first.

        Rows with an empty cell or NaN in an objective, and rows whose status is ``failed``, are on no front.

        Args:
            name: the table.
            objectives: columns, such as ``["loss", "latency_ms"]``. Smaller is better, except for columns whose schema
                says otherwise (``better: larger`` in the field metadata); ``"column:max"`` or ``"column:min"`` decides.
            where: which rows take part, as in :meth:`table`.
            columns: which columns to return, in this order; None: all. Reading few is much faster.

        Raises:
            UserError: an unknown table, or column (the nearest is suggested), or an objective that holds no numbers.
        """
        table = find_table(name)
        wanted = [column.name for column in table.columns] if columns is None else list(columns)
        check_columns(table, wanted)
        deciding = [ColumnObjective.parse(text, table).column for text in objectives]
        status = [column.name for column in table.columns if column.name == "status"]
        rows = self.table(name, list(dict.fromkeys([*wanted, *deciding, *status])), where)
        return front_of(rows, table, objectives).select(wanted)

    def relation(self, name: str) -> duckdb.DuckDBPyRelation:
        """One table, as it is now, as a DuckDB relation, to filter, join and aggregate further.

        All relations of one object live in one connection, which the object keeps open for as long as it exists; so
        they can be joined, and the object has to outlive them. The connection reaches no files and no network.

        Raises:
            UserError: an unknown table.
        """
        rows = self.table(name)
        with self._connecting:
            if self._connection is None:
                self._connection = guarded_connection()
            return self._connection.from_arrow(rows).set_alias(name)

    def frame(self, name: str, columns: Sequence[str] | None = None, where: str = "") -> pd.DataFrame:
        """One table as a pandas frame; whole numbers and flags keep their type where cells are empty (``Int64``).

        Args:
            name: the table.
            columns: which columns, in this order; None: all.
            where: which rows, as in :meth:`table`.

        Raises:
            UserError: an unknown table or column, or ``where`` is no boolean expression.
        """
        import pandas as pd  # here, because it takes longer to load than most commands need

        types = {INTEGER: pd.Int64Dtype(), FLAG: pd.BooleanDtype()}
        frame: pd.DataFrame = self.table(name, columns, where).to_pandas(types_mapper=types.get)
        return frame

    def sql(self, query: str) -> pa.Table:
        """The answer of one SELECT (DuckDB's dialect) over the tables, which are there under their names.

        Raises:
            UserError: the query is wrong, or is no SELECT.
        """
        import duckdb

        with guarded_connection() as connection:
            try:
                statements = connection.extract_statements(query)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise UserError("results: a query has to be one SELECT statement; results are never written by SQL")
                for name in connection.get_table_names(query):
                    if name.lower() in TABLES:
                        connection.register(name.lower(), self.table(name.lower()))
                return connection.sql(query).to_arrow_table()
            except duckdb.Error as error:
                raise UserError(f"results: the query failed: {one_line(error)}") from error

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
