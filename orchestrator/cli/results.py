"""``netsuke results``: the tables of a run, also while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, check_run_folder, console, new_table, print_json
from orchestrator.cli.result_views import LEFT_OUT, VIEWS
from orchestrator.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.results import Results

_ALL_COLUMNS = "--format csv and --json have all columns."
_ROWS_OF_A_TABLE = 20


class ResultsFormat(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def results(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="the run folder, such as runs/quickstart, or the path or URL of results"),
    ],
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="a table; none: how many rows each table has", show_default=False)
    ] = "",
    where: Annotated[
        str, typer.Option("--where", metavar="CONDITION", help="only rows like 'parameters < 10e6' (DuckDB)")
    ] = "",
    pareto: Annotated[
        str,
        typer.Option(
            "--pareto",
            metavar="COLUMNS",
            help="only rows no other row beats in loss,latency_ms; x:max: larger is better",
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            help="rows: the newest, of a front the best; default: 20 as a table (fronts and selections: all), else all",
        ),
    ] = None,
    output_format: Annotated[
        ResultsFormat, typer.Option("--format", help="parquet needs a file or pipe behind it")
    ] = ResultsFormat.TABLE,
    sql: Annotated[
        str, typer.Option("--sql", metavar="QUERY", help="one SELECT (DuckDB) over the tables instead of TABLE")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Print a table of a run, or which tables there are."""
    if table and sql:
        raise UserError("--sql: found a table and a query, expected only one of them")
    for option, value in (("--where", where), ("--pareto", pareto)):
        if value and not table:
            raise UserError(f"{option}: found no TABLE, expected one, such as netsuke results {run} evaluations")
    opened = _open(run)
    chosen = ResultsFormat.JSON if as_json else output_format
    if not table and not sql:
        _print_overview(opened, chosen)
        return
    rows = opened.sql(sql) if sql else _chosen_rows(opened.table(table), table, where, pareto)
    total = rows.num_rows
    in_part = chosen is ResultsFormat.TABLE and table not in VIEWS and not pareto
    wanted = limit or (_ROWS_OF_A_TABLE if in_part else total)
    # A query and a front are in an order of their own; a table is in order of recording, its newest rows at its end.
    shown = rows.slice(0, wanted) if sql or pareto else rows.slice(max(0, total - wanted))
    _print_rows(shown, total, table or "query", chosen)


def _open(run: str) -> Results:
    """The results of a run folder, of a results folder, or behind a URL."""
    import orchestrator.results
    from orchestrator.results.schemas import RUNS
    from orchestrator.results_url import is_url

    # A run's own folder holds folders of the names of some tables, but never one called runs.
    if not is_url(run) and not (Path(run) / RUNS.name).is_dir():
        check_run_folder(Path(run))
    return orchestrator.results.open(run)


def _chosen_rows(rows: pa.Table, name: str, where: str, pareto: str) -> pa.Table:
    """The rows the condition holds for, and of those the front."""
    from orchestrator.results.choosing import front_of, rows_where
    from orchestrator.results.rows import find_table

    table = find_table(name)
    if where:
        with _naming("--where"):
            rows = rows_where(rows, table, where)
    if pareto:
        with _naming("--pareto"):
            rows = front_of(rows, table, pareto.split(","))
    return rows


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Say which option was wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{option}: {error}") from error


def _print_overview(opened: Results, chosen: ResultsFormat) -> None:
    import pyarrow as pa

    from orchestrator.results.schemas import TABLES

    counts = opened.counts()
    rows = [{"table": name, "rows": counts[name], "a row is": TABLES[name].row} for name in counts]
    _print_rows(pa.Table.from_pylist(rows), len(rows), "tables", chosen)


def _print_rows(rows: pa.Table, total: int, name: str, chosen: ResultsFormat) -> None:
    if chosen is ResultsFormat.PARQUET:
        _write_parquet(rows)
    elif chosen is ResultsFormat.CSV:
        rows_to_csv(rows)
    elif chosen is ResultsFormat.JSON:
        print_json([_plain(row) for row in rows.to_pylist()])
    else:
        _print_table(rows, total, name)


def _write_parquet(rows: pa.Table) -> None:
    import pyarrow.parquet as pq

    if sys.stdout.isatty():
        raise UserError("--format parquet: found a terminal, expected a file or pipe, such as > rows.parquet")
    pq.write_table(rows, sys.stdout.buffer)


def rows_to_csv(rows: pa.Table) -> None:
    """Print rows as CSV with a header; times as ISO 8601, genes as JSON, empty cells empty."""
    import csv
    import json

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in rows.to_pylist():
        cells = [json.dumps(value) if isinstance(value, dict) else value for value in _plain(row).values()]
        writer.writerow("" if cell is None else cell for cell in cells)


def _print_table(rows: pa.Table, total: int, name: str) -> None:
    """Print rows for people: columns that are empty in all of them are left out."""
    if name not in VIEWS:
        hidden = {"run_id", "recorded_at"}
        worth_reading = [column for column in _filled(rows) if column not in hidden] or _filled(rows)
        shown = [column for column in worth_reading if column not in LEFT_OUT.get(name, ())]
        _print_columns(rows.select(shown), total, name)
        if len(shown) < len(worth_reading):
            console().print(_ALL_COLUMNS, markup=False)
        return
    import pyarrow as pa

    left_out: set[str] = set()
    for view in VIEWS[name]:
        part = rows.filter(pa.array([view.matches(row) for row in rows.to_pylist()], type=pa.bool_()))
        if part.num_rows:
            filled = set(_filled(part))
            left_out |= filled - set(view.columns)
            shown = [column for column in view.columns if column in filled]
            _print_columns(part.select(shown), part.num_rows, f"{name}, {view.title}")
    if rows.num_rows < total:
        console().print(f"The newest {rows.num_rows} of {total} rows.", markup=False)
    if left_out - {"run_id", "recorded_at"}:
        console().print(_ALL_COLUMNS, markup=False)


def _filled(rows: pa.Table) -> list[str]:
    return [column for column in rows.column_names if rows.num_rows == 0 or rows[column].null_count < rows.num_rows]


def _print_columns(rows: pa.Table, total: int, name: str) -> None:
    title = f"{name}: {rows.num_rows} of {total} rows" if rows.num_rows < total else f"{name}: {total} rows"
    columns = rows.column_names
    numeric = tuple(column for column in columns if _is_number(rows.schema.field(column).type))
    table = new_table(title if name != "tables" else "", *columns, right=numeric)
    for row in rows.to_pylist():
        table.add_row(*(_cell(value) for value in _plain(row).values()))
    console().print(table)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _cell(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return escape(" ".join(f"{key}={inner}" for key, inner in value.items()))
    return "" if value is None else escape(str(value))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON-native values: times as ISO 8601 text, maps (Arrow gives pairs) as mappings."""
    return {key: _plain_value(value) for key, value in row.items()}


def _plain_value(value: Any) -> Any:
    import datetime

    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, list) and value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return dict(value)
    return value
