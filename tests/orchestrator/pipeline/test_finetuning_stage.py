"""The stage that tunes the models of a run, on a copy of the finished microscopic one."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.pipeline import plan_recipe
from orchestrator.recipe import load_recipe
from tests.orchestrator.pipeline.microscopic_run import MODELS, WINNERS
from tests.trainers.tasks.toy_tasks import write_sentiment
from trainers.errors import TrainingInputError

SETTINGS = (
    "finetuning.tasks=[sst2]",
    "finetuning.epochs=1",
    "finetuning.max_length=16",
    "finetuning.pooling=mean",
    "finetuning.max_train_examples=16",
    "finetuning.actors=2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_sentiment(tmp_path_factory.mktemp("data"), 24, 12)


def changes(data, *more):
    return [*SETTINGS, f"finetuning.data={data}", *more]


def test_without_tasks_nothing_happens(finished):
    assert finished.table("task_scores").empty
    plan = plan_recipe(load_recipe(str(finished.recipe)), finished.folder)
    stage = next(stage for stage in plan.stages if stage.name == "finetuning")
    assert stage.action == "skip"
    assert "no tasks" in stage.work


@pytest.mark.slow
def test_every_model_is_tuned_alike_and_resumes(finished, data, tmp_path):
    run = finished.copy(tmp_path / "run")
    run.start(*changes(data))
    assert run.last_attempt()["distillation"] == "skipped"
    assert run.last_attempt()["finetuning"] == "finished"
    rows = run.table("task_scores")
    assert set(rows["model"]) == {*MODELS, "teacher"}
    assert set(rows["teacher"].dropna()) == {"teacher"}
    assert set(rows[rows["role"] == "winner"]["model"]) == set(WINNERS)
    assert (rows["examples"] == 16).all()
    assert (rows["dev_examples"] == 12).all()
    assert rows["value"].between(0, 1).all()
    assert not (run.folder / "finetuned").exists(), "tuned models that only served are removed"

    run.start(*changes(data))
    assert run.last_attempt()["finetuning"] == "skipped"

    run.start(*changes(data, "finetuning.seeds=[1, 2]"))
    more = run.table("task_scores")
    first = more[more["seed"] == 1].set_index("model")["seconds"]
    assert dict(first) == dict(rows.set_index("model")["seconds"]), "what was measured for seed 1 still holds"
    assert set(more["seed"]) == {1, 2}

    run.start(*changes(data, "finetuning.seeds=[2]"))
    assert set(run.table("task_scores")["seed"]) == {2}, "rows of a seed that is gone no longer count"


def test_a_dry_run_counts_the_fine_tunings(finished, data):
    recipe = load_recipe(str(finished.recipe), changes(data, "finetuning.seeds=[1, 2, 3]"))
    plan = plan_recipe(recipe, finished.folder)
    stage = next(stage for stage in plan.stages if stage.name == "finetuning")
    assert stage.action == "run"
    assert stage.work == "up to 15 fine-tunings: 5 models, 1 task, 3 seeds (task distillation)"
    assert stage.seconds > 0


def test_the_bundled_task_is_looked_for_nowhere(finished):
    plan = plan_recipe(load_recipe(str(finished.recipe), ["finetuning.tasks=[authors]"]), finished.folder)
    assert not any("finetuning" in note for note in plan.notes)
    with_hub = plan_recipe(load_recipe(str(finished.recipe), ["finetuning.tasks=[authors, rte]"]), finished.folder)
    assert any("finetuning: the data of rte " in note for note in with_hub.notes)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("finetuning.tasks=[sst3]", "found 'sst3', expected one of cola, .*did you mean 'sst2'"),
        ("finetuning.tasks=[sst2, sst2]", "found 'sst2' a second time"),
        ("finetuning.seeds=[]", "finetuning.seeds"),
        ("finetuning.distillation_weight=1.5", "expected at most 1"),
        ("finetuning.train_data={rte: other}", "expected one of the tasks: sst2"),
    ],
)
def test_mistakes_in_the_recipe(finished, data, setting, message):
    with pytest.raises(UserError, match=message):
        load_recipe(str(finished.recipe), changes(data, setting))


def test_missing_data_is_found_before_anything_runs(finished, data, tmp_path):
    recipe = load_recipe(str(finished.recipe), changes(tmp_path))
    with pytest.raises(TrainingInputError, match=r"finetuning.data: task 'sst2'"):
        plan_recipe(recipe, finished.folder)
