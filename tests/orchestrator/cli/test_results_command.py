from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from orchestrator.results import ResultsWriter
from orchestrator.results.columns import INTEGER, REAL, TEXT
from orchestrator.results.schemas import TABLES


def test_without_a_table_every_table_and_its_rows(netsuke, run_folder):
    answer = netsuke("results", run_folder, "--json")
    assert answer.code == 0
    assert {row["table"]: row["rows"] for row in answer.json} == dict.fromkeys(TABLES, 0) | {
        "training": 3,
        "evaluations": 2,
    }
    printed = netsuke("results", run_folder).out
    assert all(name in printed for name in TABLES)


def test_json_rows_are_complete_and_native(netsuke, run_folder):
    rows = netsuke("results", run_folder, "evaluations", "--json").json
    assert [row["genes"] for row in rows] == [{"layers": "2"}, {"layers": "1"}]
    assert rows[0]["loss"] == 0.5
    assert rows[0]["flops"] is None
    assert rows[0]["recorded_at"].startswith("20")
    assert set(rows[0]) == {column.name for column in TABLES["evaluations"].columns}


def test_csv_rows_parse_back(netsuke, run_folder):
    out = netsuke("results", run_folder, "evaluations", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["architecture"] for row in rows] == ["E8|8:M-F", "E8|8:F"]
    assert json.loads(rows[0]["genes"]) == {"layers": "2"}
    assert rows[0]["flops"] == ""


def test_parquet_rows_keep_their_schema(netsuke_process, run_folder):
    process = netsuke_process("results", run_folder, "training", "--format", "parquet")
    out, err = process.stdout.buffer.read(), process.stderr.read()
    process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = pq.read_table(io.BytesIO(out))
    assert rows.schema.equals(TABLES["training"].schema())
    assert rows["step"].to_pylist() == [10, 20, 30]


def test_a_table_shows_the_newest_rows_and_no_empty_columns(netsuke, run_folder):
    answer = netsuke("results", run_folder, "training", "--limit", "2")
    assert "training: 2 of 3 rows" in answer.out
    assert "0.0333333" in answer.out
    assert "0.1 " not in answer.out
    assert "tokens_per_second" not in answer.out
    steps = [row["step"] for row in netsuke("results", run_folder, "training", "--limit", "2", "--json").json]
    assert steps == [20, 30]


def test_a_query_answers(netsuke, run_folder):
    query = "select max(step) as last, count(*) as n from training"
    assert netsuke("results", run_folder, "--sql", query, "--json").json == [{"last": 30, "n": 3}]
    limited = netsuke("results", run_folder, "--sql", "select step from training order by step", "--limit", 1, "--json")
    assert limited.json == [{"step": 10}]


def test_a_condition_a_front_and_a_limit_apply_in_this_order(netsuke, run_folder):
    question = ["results", run_folder, "training", "--pareto", "step,loss"]
    assert [row["step"] for row in netsuke(*question, "--json").json] == [10, 20, 30]
    rows = netsuke(*question, "--where", "step > 10", "--limit", 1, "--json").json
    assert [row["step"] for row in rows] == [20]
    best = netsuke("results", run_folder, "training", "--pareto", "step:max", "--format", "csv").out
    assert [row["step"] for row in csv.DictReader(io.StringIO(best))] == ["30"]
    assert "training: 2 rows" in netsuke("results", run_folder, "training", "--where", "loss < 0.1").out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trainings"], "training"),
        (["training", "--sql", "select 1"], "--sql: found a table and a query"),
        (["--sql", "drop table training"], "SELECT"),
        (["training", "--limit", "0"], "--limit"),
        (["training", "--where", "stp > 10"], "--where: results table 'training': unknown column 'stp', did you mean"),
        (
            ["training", "--pareto", "loss,stp"],
            "--pareto: results table 'training': unknown column 'stp', did you mean",
        ),
        (["training", "--pareto", "stage"], "column 'stage' holds string, no numbers"),
        (["--pareto", "loss"], "--pareto: found no TABLE, expected one"),
        (["--sql", "select 1", "--where", "true"], "--where: found no TABLE"),
        (["training", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_questions_get_one_line(netsuke, run_folder, arguments, expected):
    answer = netsuke("results", run_folder, *arguments)
    assert answer.code == 2
    assert expected in answer.error
    assert answer.out == ""


def test_text_with_markup_is_shown_as_it_is(netsuke, run_folder):
    out = netsuke("results", run_folder, "--sql", "select '[bold]x[/bold]' as text").out
    assert "[bold]x[/bold]" in out


def test_selections_are_printed_one_kind_of_rows_at_a_time(netsuke, tmp_path):
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        candidate = {"arch_id": "a", "architecture": "E8|8:M", "loss": 0.5, "rank": 1, "chosen": True}
        for number in range(25):
            writer.append("selections", budget=f"b{number}", **candidate)
        writer.append("selections", budget="rank_fidelity", **(candidate | {"chosen": False, "trial_rank": 3}))
        writer.append("selections", budget="rank_fidelity", proxy="loss", tau=0.75)
    out = netsuke("results", tmp_path, "selections").out
    assert "candidates: 25 rows" in out
    assert "the sample: 1 rows" in out
    assert "the proxies: 1 rows" in out
    candidates, sample, proxies = out.split("rank fidelity, ", 2)[0], *out.split("rank fidelity, ", 2)[1:]
    assert "tau" not in candidates + sample
    assert "trial_rank" in sample
    assert "architecture" not in proxies
    assert "--json have all columns" in out
    assert len(netsuke("results", tmp_path, "selections", "--json").json) == 27


def test_rows_of_block_losses_and_shrinking_fit_on_a_line(netsuke, tmp_path):
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        for table in ("block_losses", "signals", "shrinking"):
            numbers = {column.name: 12345 for column in TABLES[table].columns if column.type == INTEGER}
            reals = {column.name: 0.123456 for column in TABLES[table].columns if column.type == REAL}
            texts = {column.name: "16:M-F-M-F" for column in TABLES[table].columns if column.type == TEXT}
            writer.append(table, **{**numbers, **reals, **texts, "run_id": "r1"})
    for table in ("block_losses", "signals", "shrinking"):
        lines = netsuke("results", tmp_path, table).out.splitlines()
        assert len([line for line in lines if "12345" in line]) == 1
        assert len(lines) <= 7, "a heading or a row was folded"
        assert "--json have all columns" in lines[-1]
