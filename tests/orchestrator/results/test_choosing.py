"""Conditions and fronts: the rows that are wanted, and one line about a question that cannot be answered."""

from __future__ import annotations

import gc

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.results import TABLES, ResultsWriter, open_results
from orchestrator.results.choosing import front_of, rows_where

EVALUATIONS = TABLES["evaluations"]
NUMBER = st.none() | st.integers(0, 4)


def evaluations(**columns):
    """Rows of the table with these columns, all others empty."""
    count = len(next(iter(columns.values())))
    arrays = [pa.array(columns.get(field.name, [None] * count), type=field.type) for field in EVALUATIONS.schema()]
    return pa.Table.from_arrays(arrays, schema=EVALUATIONS.schema())


ROWS = evaluations(
    arch_id=list("abcdef"),
    status=["ok", "ok", "ok", "ok", "ok", "failed"],
    loss=[0.5, 0.4, 0.3, 0.3, float("nan"), None],
    latency_ms=[1.0, 2.0, 3.0, 4.0, 0.1, 0.1],
    parameters=[10, 20, None, 40, 50, 1],
    genes=[[("M", "1")]] * 5 + [None],
)


def names(rows):
    return "".join(rows["arch_id"].to_pylist())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("parameters < 10e6", "abdef"),
        ("parameters >= 20 AND loss < 0.35", "d"),
        ("LOSS = (SELECT min(loss) FROM evaluations) OR arch_id = 'f'", "cdf"),
        ("genes['M'] = '1'", "abcde"),
        ("evaluations.status <> 'ok' -- a remark", "f"),
        ("false", ""),
    ],
)
def test_a_condition_keeps_rows_in_order_and_whole(condition, expected):
    rows = rows_where(ROWS, EVALUATIONS, condition)
    assert names(rows) == expected
    assert rows.schema.equals(EVALUATIONS.schema(), check_metadata=True)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("los < 1", "unknown column 'los', did you mean 'loss'?"),
        ("loss <", "syntax error"),
        ("loss", "found a value of type DOUBLE, expected what is true or false of a row"),
        ("loss < 1, true", "single expression"),
        ("loss < 1) OR (true", "syntax error"),
        ("true; DROP TABLE evaluations", "holds more than one statement"),
        ("max(loss) > 1", "cannot contain aggregates"),
        ("SELECT 1", "expected one expression such as loss < 0.5"),
        (" ", "found nothing; expected one expression"),
        ("EXISTS (SELECT * FROM read_text('pyproject.toml'))", "disabled by configuration"),
        ("loss < 'low'", "Could not convert string 'low'"),
    ],
)
def test_a_wrong_condition_is_explained_in_one_line(condition, expected):
    with pytest.raises(UserError) as caught:
        rows_where(ROWS, EVALUATIONS, condition)
    assert str(caught.value).startswith("results table 'evaluations'")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (["loss", "latency_ms"], "cba"),
        (["latency_ms", "loss"], "abc"),
        (["loss:min", "latency_ms:max"], "d"),
        (["parameters:max", "latency_ms"], "e"),
        (["loss"], "cd"),
        (["parameters", "latency_ms:max", "loss"], "abd"),
    ],
)
def test_a_front_is_ordered_and_without_failed_or_empty_rows(objectives, expected):
    assert names(front_of(ROWS, EVALUATIONS, objectives)) == expected


def test_the_schema_says_where_larger_is_better():
    models = TABLES["models"]
    assert models.schema().field("cosine_similarity").metadata[b"better"] == b"larger"
    columns = {"model": list("abc"), "cosine_similarity": [0.5, 0.9, 0.7], "perplexity": [1.0, 3.0, 9.0]}
    rows = pa.table(columns)
    assert front_of(rows, models, ["cosine_similarity", "perplexity"])["model"].to_pylist() == ["b", "a"]
    assert front_of(rows, models, ["cosine_similarity:min", "perplexity"])["model"].to_pylist() == ["a"]


@settings(max_examples=50, deadline=None)
@given(points=st.lists(st.tuples(NUMBER, NUMBER), max_size=12))
def test_a_front_is_what_no_complete_row_beats(points):
    losses, sizes = ([point[index] for point in points] for index in (0, 1))
    rows = evaluations(loss=losses, parameters=sizes, proposal=range(len(points)))
    complete = [point for point in points if None not in point]
    expected = [
        number
        for number, point in enumerate(points)
        if None not in point and not any(o != point and o[0] <= point[0] and o[1] <= point[1] for o in complete)
    ]
    found = front_of(rows, EVALUATIONS, ["loss", "parameters"])
    assert sorted(found["proposal"].to_pylist()) == expected
    assert found["loss"].to_pylist() == sorted(found["loss"].to_pylist())


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (["loss", "latncy_ms"], "unknown column 'latncy_ms', did you mean 'latency_ms'?"),
        (["architecture"], "column 'architecture' holds string, no numbers"),
        (["loss:up"], "objective 'loss:up' ends in ':up', expected :min or :max"),
        (["loss", "loss:max"], "found the objectives loss, loss, expected different columns"),
        ([], "found the objectives none"),
    ],
)
def test_a_wrong_objective_is_named(objectives, expected):
    with pytest.raises(UserError) as caught:
        front_of(ROWS, EVALUATIONS, objectives)
    assert expected in str(caught.value)


@pytest.fixture
def results(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        for number in range(6):
            writer.append(
                "evaluations", arch_id=f"{number}", loss=number / 8, latency_ms=6.0 - number, strategy="random"
            )
        writer.append("evaluations", arch_id="0", strategy="random", loss=9.0, latency_ms=9.0)
        writer.append("selections", budget="small", arch_id="1", chosen=True)
    return open_results(tmp_path)


def test_a_reader_answers_both_after_dropping_repeated_measurements(results):
    front = results.front("evaluations", ["loss", "latency_ms"], where="latency_ms > 1", columns=["arch_id", "loss"])
    assert front.to_pydict() == {"arch_id": ["1", "2", "3", "4"], "loss": [0.125, 0.25, 0.375, 0.5]}
    assert results.front("evaluations", ["loss"]).schema.equals(EVALUATIONS.schema(), check_metadata=True)
    assert results.frame("evaluations", ["arch_id"], where="loss > 1")["arch_id"].tolist() == ["0"]


def test_relations_can_be_joined_and_reach_no_files(results):
    gc.collect()
    scored, chosen = results.relation("evaluations"), results.relation("selections")
    joined = scored.join(chosen, "evaluations.arch_id = selections.arch_id").select("evaluations.loss, budget")
    assert joined.fetchall() == [(0.125, "small")]
    assert scored.filter("loss < 0.3").count("*").fetchall() == [(2,)]
    assert pc.max(scored.to_arrow_table()["loss"]).as_py() == 9.0
    with pytest.raises(Exception, match="disabled by configuration"):
        scored.filter("EXISTS (SELECT * FROM read_text('pyproject.toml'))").fetchall()
