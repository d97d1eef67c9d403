"""The stage by itself, on models that need no run: what it records, keeps and does again. Whole runs are elsewhere."""

from __future__ import annotations

from typing import Any, cast

import pytest

from orchestrator.evaluation.actor_pool import run_here
from orchestrator.progress import Progress
from orchestrator.recipe import Recipe
from orchestrator.results import ResultsWriter, open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages import tuning
from orchestrator.stages.base import RunContext, RunPlan, StageResult
from orchestrator.stages.finetuning import FineTuningStage, tuning_settings
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.trainers.tasks.toy_tasks import save_bert, save_nas_bert, write_sentiment
from trainers.tasks.losses import Imitation

MODELS = [
    {"label": "half", "role": "winner", "budget": "half", "same_as": None},
    {"label": "half-uniform", "role": "uniform", "budget": "half", "same_as": None},
]


class Stages:
    """Starts the stage again and again on one run folder."""

    def __init__(self, folder, **section: Any) -> None:
        self.folder = RunDirectory(folder / "run")
        self.section = {"data": str(folder / "data"), "epochs": 1, "pooling": "mean", "max_length": 24} | section

    def context(self, writer, **section: Any) -> RunContext:
        recipe = Recipe(name="toy", finetuning=self.section | section)
        plan = RunPlan(recipe, self.folder, shape_of_teacher(), cast(Any, None))
        return RunContext(plan, writer, cast(Any, None), "signature", {"distillation": {"models": MODELS}})

    def start(self, **section: Any) -> StageResult:
        with ResultsWriter(self.folder.results, "toy") as writer:
            context = self.context(writer, **section)
            stage = FineTuningStage()
            stage.check(context.plan)
            with Progress("silent").stage(stage.name) as progress:
                result = stage.run(context, progress)
            stage.clean_up(context)
        return result

    def rows(self) -> list[dict[str, Any]]:
        return open_results(self.folder.results).table("task_scores").to_pylist()


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "run_on_actors", run_here)  # the same work without Ray
    write_sentiment(tmp_path / "data", 32, 16)
    save_bert(tmp_path / "run" / "teacher")
    save_nas_bert(tmp_path / "run" / "models" / "half")
    save_bert(tmp_path / "run" / "models" / "half-uniform", seed=2)
    return Stages(tmp_path, tasks=["sst2"])


def test_teacher_winners_and_baselines_are_tuned_alike(stages):
    result = stages.start()
    assert result.detail.startswith("3 fine-tunings; average of the tasks: teacher ")
    assert set(result.outputs["averages"]) == {"teacher", "half", "half-uniform"}
    rows = {row["model"]: row for row in stages.rows()}
    assert {name: row["role"] for name, row in rows.items()} == {
        "teacher": "teacher",
        "half": "winner",
        "half-uniform": "uniform",
    }
    assert {row["teacher"] for row in rows.values() if row["role"] != "teacher"} == {"teacher"}
    assert {(row["examples"], row["epochs"], row["task"]) for row in rows.values()} == {(32, 1, "sst2")}
    assert not stages.folder.finetuned.exists()


def test_it_goes_on_where_it_was_stopped(stages):
    first = stages.start()
    seconds = {row["model"]: row["seconds"] for row in stages.rows()}
    again = stages.start(seeds=[1, 2])
    assert again.detail.startswith("3 fine-tunings"), "the second seed's alone"
    assert {row["model"]: row["seconds"] for row in stages.rows() if row["seed"] == 1} == seconds
    assert stages.start().outputs == first.outputs
    assert stages.start().detail.startswith("0 fine-tunings")


def test_models_are_kept_and_the_teacher_is_optional(stages):
    stages.start(distil=False, save_models=True)
    assert {row["model"] for row in stages.rows()} == {"half", "half-uniform"}
    assert {row["teacher"] for row in stages.rows()} == {None}
    assert (stages.folder.finetuned / "half" / "sst2" / "seed-1" / "model.safetensors").is_file()


def test_a_model_that_two_budgets_share_is_tuned_once_and_scored_for_both(stages, monkeypatch):
    copy = {"label": "also", "role": "winner", "budget": "also", "same_as": "half"}
    monkeypatch.setattr("tests.orchestrator.finetuning.test_stage.MODELS", [*MODELS, copy])
    result = stages.start(distil=False, save_models=True)
    assert result.detail.startswith("2 fine-tunings")
    assert result.outputs["averages"]["also"] == result.outputs["averages"]["half"]
    rows = {row["model"]: row for row in stages.rows()}
    differing = {name for name in rows["half"] if rows["half"][name] != rows["also"][name]}
    assert differing == {"model", "budget", "recorded_at"}
    assert (stages.folder.finetuned / "also" / "sst2" / "seed-1" / "model.safetensors").is_file()


def test_without_tasks_nothing_happens(stages):
    assert stages.start(tasks=[], data=None).detail == "no tasks"
    assert stages.rows() == []
    with ResultsWriter(stages.folder.results, "toy") as writer:
        plan = stages.context(writer, tasks=[], data=None).plan
    assert FineTuningStage().depends_on(plan) == []
    assert FineTuningStage().requests(plan) is None


def test_its_signature_follows_the_data_and_not_the_way_it_is_carried_out(stages, tmp_path):
    from orchestrator.recipe.signatures import signature

    with ResultsWriter(stages.folder.results, "toy") as writer:

        def found(**section):
            return signature(*FineTuningStage().depends_on(stages.context(writer, **section).plan))

        before = found()
        assert found(actors=7, save_models=True) == before
        assert found(epochs=2) != before
        write_sentiment(tmp_path / "data", 33, 16)
        assert found() != before


def test_a_plan_counts_the_fine_tunings(stages):
    with ResultsWriter(stages.folder.results, "toy") as writer:
        plan = stages.context(writer, seeds=[1, 2, 3]).plan
        planned = FineTuningStage().planned(plan)
        assert planned.work == "9 fine-tunings: 3 models, 1 task, 3 seeds (task distillation)"
        more = FineTuningStage().planned(stages.context(writer, seeds=[1, 2, 3], epochs=50).plan)
        assert more.seconds > planned.seconds


def test_the_recipe_s_imitation_reaches_the_trainers():
    """By default NAS-BERT's; EfficientBERT's compares numbers with gold labels and the layers, too."""
    plain = tuning_settings(Recipe(name="toy").finetuning)
    assert (plain.imitation, plain.distillation_weight, plain.layer_weight) == (Imitation(), 0.5, 0.0)
    keys = {"imitation": "soft_cross_entropy", "imitation_classes": "sum", "imitation_numbers": "labels"}
    keys |= {"imitation_first_token": "hidden", "temperature": 2.0, "distillation_weight": 1.0}
    keys |= {"layer_weight": 3.0, "layer_padding": "masked", "layer_scale": "relative"}
    found = tuning_settings(Recipe(name="toy", finetuning=keys).finetuning)
    assert found.imitation == Imitation("soft_cross_entropy", "sum", "labels", "hidden", 2.0)
    assert (found.distillation_weight, found.layer_weight) == (1.0, 3.0)
    assert (found.layer_padding, found.layer_scale) == ("masked", "relative")
    alone = tuning_settings(Recipe(name="toy", finetuning=keys | {"distil": False}).finetuning)
    assert (alone.distillation_weight, alone.layer_weight) == (0.0, 0.0), "nobody is imitated"
