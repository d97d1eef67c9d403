"""The tables describe themselves, and everything that reads Parquet reads them."""

from __future__ import annotations

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from orchestrator.results import SCHEMA_VERSION, TABLES, ResultsWriter
from orchestrator.results.columns import FLAG, GENES, INTEGER, REAL, TEXT, TIME
from tests.orchestrator.results.rows_of_tables import complete_row, smallest_row

EXPECTED = {
    "runs",
    "training",
    "evaluations",
    "block_losses",
    "signals",
    "shrinking",
    "latency",
    "latency_terms",
    "selections",
    "models",
    "task_scores",
    "sweeps",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two rows in every table: one with every cell, one with as few as possible."""
    folder = tmp_path_factory.mktemp("results")
    with ResultsWriter(folder, "run-1") as writer:
        for name in TABLES:
            writer.append(name, **complete_row(name))
            writer.append(name, **smallest_row(name))
    return folder


def test_there_are_these_tables():
    assert set(TABLES) == EXPECTED
    assert all(table.name == name for name, table in TABLES.items())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_column_says_what_it_means(name):
    table = TABLES[name]
    assert table.row
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names))
    assert names[:2] == ["run_id", "recorded_at"]
    assert set(table.key) <= set(names)
    for column in table.columns:
        assert column.description.strip()
        assert column.type in (TEXT, INTEGER, REAL, FLAG, TIME, GENES)
    schema = table.schema()
    assert schema.metadata == {b"netsuke_table": name.encode(), b"netsuke_schema_version": SCHEMA_VERSION.encode()}
    for field, column in zip(schema, table.columns, strict=True):
        assert field.metadata[b"description"].decode() == column.description
        assert field.metadata[b"unit"].decode() == column.unit
        assert field.nullable == (not column.required)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_units_and_descriptions_are_in_the_files(folder, name):
    for path in (folder / name).glob("part-*.parquet"):
        found, expected = pq.read_schema(path), TABLES[name].schema()
        assert found.equals(expected)
        assert found.metadata == expected.metadata
        assert [field.metadata for field in found] == [field.metadata for field in expected]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_arrow_pandas_polars_and_duckdb_read_the_same(folder, name):
    dataset = ds.dataset(folder / name, format="parquet").to_table()
    assert dataset.schema.equals(TABLES[name].schema())
    expected = sorted(dataset.to_pylist(), key=lambda row: row["recorded_at"])
    assert len(expected) == 2
    first = complete_row(name)
    first = {key: list(value.items()) if isinstance(value, dict) else value for key, value in first.items()}
    assert expected[0] == first
    assert {key for key, value in expected[1].items() if value is not None} == (
        {"run_id", "recorded_at"} | set(smallest_row(name))
    )

    columns = [column.name for column in TABLES[name].columns]
    frame = pd.read_parquet(folder / name, dtype_backend="pyarrow").sort_values("recorded_at")
    assert list(frame.columns) == columns
    assert pa.Table.from_pandas(frame, schema=TABLES[name].schema(), preserve_index=False).to_pylist() == expected

    polars = pl.read_parquet(folder / name / "part-*.parquet").sort("recorded_at")
    assert pl.read_parquet(folder / name).height == 2
    plain = [column.name for column in TABLES[name].columns if column.type != GENES]
    assert polars.columns == columns
    assert polars.select(plain).to_dicts() == [{key: row[key] for key in plain} for row in expected]

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        answer = connection.sql(f"SELECT * FROM read_parquet('{folder / name}/part-*.parquet') ORDER BY recorded_at")
        assert answer.to_arrow_table().cast(TABLES[name].schema()).to_pylist() == expected
