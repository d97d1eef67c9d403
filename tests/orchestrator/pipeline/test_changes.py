"""Going on under a changed recipe: only what depends on the change runs again, and tables show only what holds now."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import RunError
from tests.orchestrator.pipeline.microscopic_run import REPORT_EVERY, STAGES
from tests.orchestrator.without_ray import trainings_here

pytestmark = pytest.mark.timeout(900)


def stages_again(run) -> tuple[str, ...]:
    return tuple(name for name, status in run.last_attempt().items() if status != "skipped")


def test_another_distillation_runs_only_what_is_behind_it(finished, tmp_path):
    run = finished.copy(tmp_path / "run")
    abandoned = [run.folder / "training" / f"{stage}-{'a' * 16}" for stage in ("distillation", "selection")]
    for path in abandoned:
        path.mkdir(parents=True)
    with trainings_here():
        run.start("distillation.steps=3")
    assert [path.exists() for path in abandoned] == [False, True], "only of a stage that finished anew"
    assert stages_again(run) == ("distillation", "evaluation", "finetuning", "report")
    training = run.table("training")
    assert set(training[training["stage"] == "distillation"]["step"]) == {3}, "rows of the longer training are shown"
    assert set(run.table("models")["distillation_steps"].dropna()) == {3}
    assert len(run.table("evaluations")) == len(finished.table("evaluations"))


@pytest.mark.slow
def test_another_supernet_and_a_budget_less_leave_nothing_old_in_the_tables(finished, tmp_path):
    run = finished.copy(tmp_path / "run")
    recipe = json.dumps([{"name": "most", "encoder_parameters": "50%"}])
    steps = 2 * REPORT_EVERY
    summary = run.start(f"supernet.steps={steps}", f"budgets={recipe}")
    assert stages_again(run) == tuple(name for name in STAGES if name not in ("teacher", "corpus", "latency"))
    assert [budget.name for budget in summary.budgets] == ["most"]

    training = run.table("training")
    assert training[training["stage"] == "supernet"]["step"].max() == steps
    assert set(training[training["stage"] == "distillation"]["subject"]) == {"most", "most-uniform"}
    assert set(run.table("models")["model"]) == {"teacher", "most", "most-uniform"}
    selections = run.table("selections")
    assert set(selections["budget"]) == {"most"}
    assert list(selections["rank"]) == list(range(1, len(selections) + 1))
    assert selections["chosen"].sum() == 1

    evaluations = run.table("evaluations")
    assert evaluations["supernet_signature"].nunique() == 2, "what the first supernet scored was measured, and stays"
    (chosen,) = selections[selections["chosen"]]["arch_id"]
    newest = evaluations[evaluations["supernet_signature"] == evaluations["supernet_signature"].iloc[-1]]
    (loss,) = newest[(newest["arch_id"] == chosen) & (newest["scope"] == "network")]["loss"].unique()
    assert selections["loss"].min() == loss
    assert "some-uniform" not in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_stage_that_failed_while_it_replaced_its_files_is_not_taken_for_finished(finished, tmp_path):
    run = finished.copy(tmp_path / "run")
    report = run.folder / "report.html"
    report.unlink()
    report.mkdir()  # no page can be written over a folder
    with pytest.raises(RunError, match="cannot be written"):
        run.start()
    assert run.table("runs")["status"].iloc[-1] == "failed"
    report.rmdir()
    report.touch()  # all that a hasty look would ask for
    run.start()
    assert stages_again(run) == ("report",)
    assert report.stat().st_size > 100_000
