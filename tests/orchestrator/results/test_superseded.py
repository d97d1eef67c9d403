"""Rows of settings that a stage no longer has are left out; those of interrupted starts are not."""

from __future__ import annotations

import pytest

from orchestrator.results import ResultsWriter, open_results


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def writer(folder):
    with ResultsWriter(folder, "run-1") as writer:
        yield writer


def log(writer, stage, signature, status="started"):
    writer.append("runs", stage=stage, stage_signature=signature, status=status)


def train(writer, stage, *steps):
    for step in steps:
        writer.append("training", stage=stage, subject=stage, step=step, loss=1 / step)


def steps(writer, folder, stage):
    writer.flush()
    rows = open_results(folder).table("training", ["stage", "step"]).to_pylist()
    return [row["step"] for row in rows if row["stage"] == stage]


def test_a_shorter_training_leaves_no_rows_of_the_longer_one(writer, folder):
    log(writer, "supernet", "long")
    train(writer, "supernet", 10, 20, 30)
    log(writer, "distillation", "d")
    train(writer, "distillation", 5)
    log(writer, "supernet", "short")
    assert steps(writer, folder, "supernet") == []
    train(writer, "supernet", 10, 20)
    assert steps(writer, folder, "supernet") == [10, 20]
    assert steps(writer, folder, "distillation") == [5], "another stage's rows are not concerned"


def test_a_resumed_or_skipped_stage_keeps_its_rows(writer, folder):
    log(writer, "supernet", "a")
    train(writer, "supernet", 10)
    log(writer, "supernet", "a", "interrupted")
    log(writer, "supernet", "a")
    train(writer, "supernet", 20)
    log(writer, "supernet", "a", "finished")
    log(writer, "supernet", "a", "skipped")
    assert steps(writer, folder, "supernet") == [10, 20]


def test_back_to_earlier_settings_the_stage_has_run_again(writer, folder):
    for signature, step in (("a", 10), ("b", 20), ("a", 30)):
        log(writer, "supernet", signature)
        train(writer, "supernet", step)
    assert steps(writer, folder, "supernet") == [30]


def test_models_selections_and_latencies_follow_their_stages(writer, folder):
    for budget, signature in (("tenth", "a"), ("half", "b")):
        log(writer, "selection", signature)
        writer.append("selections", budget=budget, arch_id=budget, chosen=True)
        log(writer, "evaluation", signature)
        writer.append("models", model=budget, role="winner")
        measured = {"batch_size": 1, "sequence_length": 8, "median_ms": 1.0}
        writer.append("latency", kind="model", operation=budget, **measured)
        writer.append("latency", kind="operation", operation=budget, **measured)
    writer.flush()
    results = open_results(folder)
    assert results.frame("selections")["budget"].to_list() == ["half"]
    assert results.frame("models")["model"].to_list() == ["half"]
    latency = results.frame("latency")
    assert list(zip(latency["kind"], latency["operation"], strict=True)) == [
        ("operation", "tenth"),
        ("model", "half"),
        ("operation", "half"),
    ], "the parts were measured by a stage that has not run again"
    log(writer, "latency", "b")
    writer.flush()
    assert results.frame("latency")["operation"].to_list() == ["half"]


def test_tables_without_a_log_are_whole(writer, folder):
    train(writer, "supernet", 1, 2)
    assert steps(writer, folder, "supernet") == [1, 2]
