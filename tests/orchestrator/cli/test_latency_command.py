"""``netsuke latency``: a table of this device in a file, and checks of tables of files and of runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import pytest

from cluster.device import describe_device
from orchestrator.latency_table.agreement import Agreement
from orchestrator.latency_table.files import read_tables
from orchestrator.recipe import load_recipe, resolved_yaml
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory, StageRecord

QUICK = ("--set", "tables.latency.repeats=1", "--set", "tables.latency.warm_up=1")


@pytest.fixture(scope="module")
def built(place, tmp_path_factory):
    """A table of the microscopic recipe for two lengths, as the command printed and wrote it."""
    from typer.testing import CliRunner

    from orchestrator.cli.latency import latency_app

    file = tmp_path_factory.mktemp("tables") / "table.json"
    command = ["build", str(place / "microscopic.yaml"), *QUICK, "--length", "16", "--length", "8"]
    answer = CliRunner().invoke(latency_app, [*command, "--output", str(file), "--json"], catch_exceptions=False)
    assert answer.exit_code == 0
    return file, json.loads(answer.stdout)


@pytest.fixture
def run_of_table(built, place, tmp_path):
    """A run folder whose stage latency has finished."""
    file, _ = built
    folder = RunDirectory(tmp_path / "run")
    recipe = load_recipe(str(place / "microscopic.yaml"), ["tables.latency.repeats=1"])
    folder.open(recipe)
    (folder.path / "recipe.yaml").write_text(resolved_yaml(recipe))
    record = StageRecord("0", "measured", 1.0, {"latency_table": read_tables(file)[0].to_json()})
    folder.write_stage_record("latency", record)
    return folder.path


def test_a_table_for_every_pair_is_written(built):
    file, said = built
    tables = read_tables(file)
    shapes = [(table.origin.conditions.batch_size, table.origin.conditions.sequence_length) for table in tables]
    assert shapes == [(2, 16), (2, 8)]
    assert said["file"] == str(file)
    assert [table["sequence_length"] for table in said["tables"]] == [16, 8]
    assert said["tables"][0]["device"] == describe_device().name
    assert said["tables"][0]["remainder"]["architectures"] == 4
    assert tables[0].origin.space_options == load_recipe_options(tables[0])


def load_recipe_options(table):
    from tests.orchestrator.pipeline.microscopic_run import RECIPE

    return RECIPE["space"]["options"]


def test_a_person_is_told_of_the_remainder_and_how_to_use_the_file(netsuke, place, tmp_path):
    file = tmp_path / "table.parquet"
    answer = netsuke("latency", "build", place / "microscopic.yaml", *QUICK, "--threads", 2, "--output", file)
    assert answer.code == 0, answer.err
    assert f"tables.latency.table: {file}" in answer.out
    assert "2 threads" in answer.out
    assert "networks left out of the fit" in answer.out
    assert read_tables(file)[0].origin.conditions.threads == 2


def test_a_file_is_checked_with_and_without_its_remainder(netsuke, built):
    file, _ = built
    answer = netsuke("latency", "check", file, "--architectures", 3, "--repeats", 1, "--json")
    assert answer.code == 0, answer.err
    checks = answer.json["checks"]
    assert [check["table"]["sequence_length"] for check in checks] == [16, 8]
    for check in checks:
        assert len(check["networks"]) == 3
        for side in ("with_remainder", "without_remainder"):
            assert set(check[side]) == {field.name for field in fields(Agreement)}
            assert check[side]["mape"] >= 0
    shown = netsuke("latency", "check", file, "--architectures", 3, "--repeats", 1)
    assert shown.out.count("with remainder") == 2
    assert "MAPE" in shown.out
    assert "Kendall tau" in shown.out


def test_a_runs_check_goes_to_its_results(netsuke, run_of_table):
    answer = netsuke("latency", "check", run_of_table, "--architectures", 3, "--json")
    assert answer.code == 0, answer.err
    rows = open_results(run_of_table / "results").frame("latency")
    assert rows["kind"].tolist() == ["check"] * 3
    said = answer.json["checks"][0]["networks"]
    assert sorted(rows["architecture"]) == sorted(network["architecture"] for network in said)
    assert rows["predicted_ms"].notna().all()
    assert rows["additive_ms"].notna().all()


def test_a_run_with_a_table_of_another_space_is_refused(netsuke, run_of_table):
    recipe = load_recipe(str(run_of_table / "recipe.yaml"), ["space.options.head_size=8"])
    (run_of_table / "recipe.yaml").write_text(resolved_yaml(recipe))
    answer = netsuke("latency", "check", run_of_table, "--architectures", 3)
    assert answer.code == 2
    assert answer.error.startswith(f"{run_of_table}: it is a table of another space: operation M at width 16 has head")
    assert answer.error.endswith("build it with this recipe")


def test_a_table_of_a_run_folder_takes_its_recipe(netsuke, run_of_table, tmp_path):
    file = tmp_path / "again.json"
    answer = netsuke("latency", "build", run_of_table, "--batch", 1, "--output", file)
    assert answer.code == 0, answer.err
    assert read_tables(file)[0].origin.conditions.batch_size == 1


def test_another_device_is_mentioned(netsuke, built, tmp_path):
    file, _ = built
    value = json.loads(file.read_text())
    value["tables"] = value["tables"][:1]
    value["tables"][0]["origin"]["device_name"] = "a far device"
    other = tmp_path / "far.json"
    other.write_text(json.dumps(value))
    answer = netsuke("latency", "check", other, "--architectures", 2, "--repeats", 1)
    assert "the table was measured on a far device, the networks on" in answer.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "gpu"], "found 'gpu', expected auto, cpu, cuda or cuda:<number>"),
        (["--length", "999"], "--length: found 999, but the teacher has only 24 positions; set it to 24 or less"),
        (["--output", "table.csv"], "table.csv: found the ending '.csv', expected .json or .parquet"),
        (["--batch", "1", "--batch", "2", "--length", "8", "--length", "9", "--length", "10"], "expected pairs"),
        (["--set", "tables.latency.fit_architectures=2"], "found 2, expected 0 or at least 4"),
    ],
)
def test_mistakes_of_build(netsuke, place, options, said):
    answer = netsuke("latency", "build", place / "microscopic.yaml", *options)
    assert answer.code == 2
    assert said in answer.error


def test_a_gpu_that_is_not_here_is_named(netsuke, place, built, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    answer = netsuke("latency", "build", place / "microscopic.yaml", "--device", "cuda")
    assert answer.code == 2
    assert "found cuda, but this process sees no GPU" in answer.error
    value = json.loads(built[0].read_text())
    value["tables"][0]["origin"]["conditions"]["device"] = "cuda"
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(value))
    answer = netsuke("latency", "check", file)
    assert answer.code == 2
    assert answer.error == f"{file}: its table was measured on cuda, which is not here"


def test_mistakes_of_check(netsuke, built, run_of_table, tmp_path):
    missing = netsuke("latency", "check", tmp_path / "none.json")
    assert (missing.code, "no such file" in missing.error) == (2, True)
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(built[0].read_bytes()[:500])
    assert netsuke("latency", "check", damaged).error.startswith(f"{damaged}: not a latency table, or damaged")
    assert netsuke("latency", "check", built[0], "--architectures", 1).code == 2
    shutil.rmtree(run_of_table / "stages")
    unfinished = netsuke("latency", "check", run_of_table)
    assert "its stage latency has not finished" in unfinished.error


PRICES = (
    *("--set", "space.name=components", "--set", "space.options={feed_forward_slices: 4}", "--repeats", 1),
    *("--set", "tables.latency.warm_up=1", "--set", "tables.latency.marginal_architectures=48"),
)


def test_prices_are_shown_as_what_one_more_costs_and_checked(netsuke, place, tmp_path):
    file = tmp_path / "prices.parquet"
    answer = netsuke("latency", "build", place / "microscopic.yaml", *PRICES, "--output", file)
    assert answer.code == 0, answer.err
    (table,) = read_tables(file)
    assert table.origin.conditions.repeats == 1
    for said in ("beside others", "behind them", "head without queries and keys", "attention.plain_stage", "Spearman"):
        assert said in answer.out
    assert ("WARNING" in answer.out) == (table.marginals.spearman() < 0.9)
    checked = netsuke("latency", "check", file, "--architectures", 3, "--json")
    assert checked.code == 0, checked.err
    (check,) = checked.json["checks"]
    assert check["without_remainder"] is None
    assert check["table"]["marginals"]["prices"][0]["name"] == "attention.norm"
    shown = netsuke("latency", "check", file, "--architectures", 3)
    assert "prices" in shown.out
    assert "without" not in shown.out


def test_a_table_needs_prices(netsuke, place):
    answer = netsuke(
        "latency", "build", place / "microscopic.yaml", *PRICES[:-1], "tables.latency.marginal_architectures=0"
    )
    assert answer.code == 2
    assert "found 0, expected 48 or more" in answer.error
    assert "to 0" not in answer.error
