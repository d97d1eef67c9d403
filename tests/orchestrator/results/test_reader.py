"""Each measurement once, the last word counts; wrong questions and foreign files get an answer in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunError, UserError
from orchestrator.results import SCHEMA_VERSION, TABLES, ResultsWriter, compact, open_results
from orchestrator.results.parts import list_parts

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with ResultsWriter(folder, "run-1", flush_rows=3) as writer:
        writer.extend(
            "evaluations",
            [
                {"arch_id": f"{i}", "strategy": "random" if i % 2 else "optuna", "loss": i / 8, "encoder_parameters": i}
                for i in range(8)
            ],
        )
        writer.append("evaluations", arch_id="3", strategy="random", loss=99.0)
        writer.append("selections", budget="small", chosen=True)
        writer.append("selections", budget="large")
    return open_results(folder)


@settings(max_examples=20, deadline=None)
@given(
    measured=st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([0, 1, None]), st.integers(0, 3)), max_size=12
    ),
    flush_rows=st.integers(1, 4),
)
def test_the_row_recorded_last_counts_and_empty_key_cells_are_equal(tmp_path_factory, measured, flush_rows):
    folder = tmp_path_factory.mktemp("results")
    expected = {}
    with ResultsWriter(folder, "run-1", flush_rows=flush_rows) as writer:
        for number, (arch_id, block, minute) in enumerate(measured):
            time = START + timedelta(minutes=minute)
            writer.append("evaluations", arch_id=arch_id, block=block, proposal=number, recorded_at=time)
            if (arch_id, block) not in expected or expected[arch_id, block][0] <= time:
                expected[arch_id, block] = (time, number)
    rows = open_results(folder).table("evaluations", ["recorded_at", "proposal"])
    assert list(zip(*rows.to_pydict().values(), strict=True)) == sorted(expected.values())
    assert open_results(folder).counts()["evaluations"] == len(expected)


def test_tables_without_a_key_keep_every_row(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.extend("runs", [{"stage": "search", "status": "started"}] * 3)
    assert open_results(tmp_path).counts()["runs"] == 3


def test_columns_come_as_asked(results):
    rows = results.table("evaluations", ["loss", "arch_id"])
    assert rows.column_names == ["loss", "arch_id"]
    assert rows["arch_id"].to_pylist() == ["0", "1", "2", "4", "5", "6", "7", "3"]
    assert rows["loss"].to_pylist()[-1] == 99.0
    assert results.table("evaluations").schema.equals(TABLES["evaluations"].schema(), check_metadata=True)


def test_frames_keep_whole_numbers_and_flags_where_cells_are_empty(results):
    frame = results.frame("evaluations")
    assert str(frame["encoder_parameters"].dtype) == "Int64"
    assert frame["encoder_parameters"].iloc[-1] is pd.NA
    assert frame["encoder_parameters"].iloc[0] == 0
    assert str(frame["recorded_at"].dtype) == "datetime64[us, UTC]"
    assert results.frame("selections", ["chosen"])["chosen"].tolist() == [True, pd.NA]


def test_sql_sees_the_de_duplicated_tables(results):
    answer = results.sql(
        "SELECT e.strategy, count(*) AS n, max(e.loss) AS loss, any_value(s.budget) AS budget "
        "FROM Evaluations e LEFT JOIN selections s ON s.chosen GROUP BY e.strategy ORDER BY n DESC, e.strategy"
    )
    assert answer.to_pylist() == [
        {"strategy": "optuna", "n": 4, "loss": 0.75, "budget": "small"},
        {"strategy": "random", "n": 4, "loss": 99.0, "budget": "small"},
    ]
    (row,) = results.sql("SELECT min(recorded_at) AS first FROM evaluations").to_pylist()
    assert row["first"] == results.table("evaluations")["recorded_at"][0].as_py()
    assert results.sql("WITH best AS (SELECT min(loss) AS loss FROM evaluations) FROM best").to_pylist() == [
        {"loss": 0}
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT lss FROM evaluations", 'Referenced column "lss" not found'),
        ("SELECT * FROM evaluation", "Table with name evaluation does not exist"),
        ("SELEC", "syntax error"),
        ("", "one SELECT statement"),
        ("SELECT 1; SELECT 2", "one SELECT statement"),
        ("DELETE FROM evaluations", "one SELECT statement"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "one SELECT statement"),
        ("SELECT * FROM read_text('pyproject.toml')", "disabled by configuration"),
        ("SELECT * FROM pd", "does not exist"),
    ],
)
def test_wrong_queries_are_explained_in_one_line(results, query, expected):
    with pytest.raises(UserError) as caught:
        results.sql(query)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_tables_and_columns_are_named(results):
    with pytest.raises(UserError, match="unknown table 'evals'.*" + ", ".join(TABLES)):
        results.table("evals")
    with pytest.raises(UserError, match="unknown column 'los', did you mean 'loss'"):
        results.frame("evaluations", ["los"])


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder without tables, expected the results folder"):
        open_results(tmp_path)
    with pytest.raises(UserError, match="nowhere is no such folder"):
        open_results(tmp_path / "nowhere")


def test_tables_that_do_not_exist_yet_are_empty(tmp_path):
    (tmp_path / "runs").mkdir()
    assert set(open_results(tmp_path).counts().values()) == {0}
    assert open_results(tmp_path).table("models").schema.equals(TABLES["models"].schema())


def only_part(folder):
    (name,) = list_parts(folder / "selections")
    return folder / "selections" / name


def rewrite(folder, version, change=lambda rows: rows):
    """Make the only part of ``selections`` one of another schema version."""
    part = only_part(folder)
    rows = change(pq.read_table(part, partitioning=None))
    pq.write_table(rows.replace_schema_metadata({"netsuke_schema_version": version} if version else {}), part)
    return part


@pytest.fixture
def folder(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.append("selections", budget="small", rank=1)
    for name in list_parts(tmp_path / "selections")[:-1]:
        (tmp_path / "selections" / name).unlink()  # the empty part of the beginning
    return tmp_path


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.0", f"has the newer schema version 2.0, expected {SCHEMA_VERSION}; upgrade netsuke"),
        ("0.9", f"has the older schema version 0.9, expected {SCHEMA_VERSION}; read it with the netsuke that wrote it"),
        ("", "is no netsuke table"),
    ],
)
def test_tables_of_another_major_version_are_neither_read_nor_added_to(folder, version, expected):
    part = rewrite(folder, version)
    for use in (open_results(folder).counts, lambda: ResultsWriter(folder, "run-2")):
        with pytest.raises(UserError) as caught:
            use()
        assert expected in str(caught.value)
        assert str(part) in str(caught.value)


def test_columns_of_another_minor_version_are_left_out_or_empty(folder):
    rewrite(folder, "1.9", lambda rows: rows.drop_columns(["rank"]).append_column("taste", pa.array(["sweet"])))
    (row,) = open_results(folder).table("selections").to_pylist()
    assert (row["budget"], row["rank"]) == ("small", None)
    assert "taste" not in row


def test_compaction_does_not_strip_columns_of_a_newer_minor_version(folder):
    part = rewrite(folder, "1.9", lambda rows: rows.append_column("taste", pa.array(["sweet"])))
    with ResultsWriter(folder, "run-2", flush_rows=1) as writer:
        for number in range(10):
            writer.append("selections", budget=f"{number}")
    compact(folder, minimum_parts=2)
    assert len(list_parts(folder / "selections")) == 2
    assert pq.read_table(part, partitioning=None)["taste"].to_pylist() == ["sweet"]
    assert open_results(folder).counts()["selections"] == 11


def test_a_damaged_part_is_named(folder):
    part = only_part(folder)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(RunError, match=rf"{part.name} cannot be read \(.*\); move it away"):
        open_results(folder).table("selections")
