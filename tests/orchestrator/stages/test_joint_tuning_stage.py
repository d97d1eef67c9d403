"""The stage that tunes a phase's supernet on tasks, and the search behind it, before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from orchestrator.errors import UserError
from orchestrator.evaluation.task_evaluator import TaskEvaluatorFactory
from orchestrator.phases import phases_of
from orchestrator.pipeline import checked_plan, plan_recipe, stage_signatures
from orchestrator.recipe import load_recipe
from orchestrator.stages import stages_of
from orchestrator.stages.candidates import (
    candidate_factory,
    check_scoring,
    factory_without_training,
    scored_by,
    scoring_seconds,
    trial_size_of,
)
from tests.orchestrator.pipeline.efficient_bert_run import EFFICIENT_BERT, in_tuned_phases
from trainers.errors import TrainingInputError
from trainers.tasks.slices import TrainSlices

KEY = "phases.2.supernet.tuning"


@pytest.fixture(scope="module")
def recipe_file(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    paths = {"teacher": {"source": str(place / "teacher")}}
    corpus = {"corpus": EFFICIENT_BERT["corpus"] | {"source": str(place / "text.txt")}}
    file = folder / "efficient.yaml"
    file.write_text(yaml.safe_dump(in_tuned_phases(folder / "data") | paths | corpus, sort_keys=False))
    return file


@pytest.fixture
def checked(recipe_file, tmp_path):
    return lambda *changes: checked_plan(load_recipe(str(recipe_file), changes), tmp_path / "run")


def test_the_tuning_is_a_stage_between_the_supernet_and_its_search(checked):
    plan = checked()
    inputs = {stage.name: stage.inputs_for(plan) for stage in stages_of(plan.recipe)}
    names = list(inputs)
    assert names[names.index("supernet.sizes") :][:3] == ["supernet.sizes", "tuning.sizes", "search.sizes"]
    assert inputs["supernet.sizes"] == ("teacher", "corpus", "supernet", "search.expressions")
    assert inputs["tuning.sizes"] == ("teacher", "supernet.sizes", "task_teachers", "search.expressions")
    assert inputs["search.sizes"] == ("tuning.sizes", "latency", "search.expressions")
    alone = checked(f"{KEY}.teachers=null")
    stages = {stage.name: stage.inputs_for(alone) for stage in stages_of(alone.recipe)}
    assert stages["tuning.sizes"] == ("teacher", "supernet.sizes", "search.expressions")
    assert "task_teachers" not in stages


def test_a_stage_runs_again_for_what_decides_its_result_alone(checked):
    before = stage_signatures(checked())

    def changed(*changes):
        after = stage_signatures(checked(*changes))
        return [name for name in after if before.get(name) != after[name] and "." in name]

    assert changed(f"{KEY}.steps=13") == ["tuning.sizes", "search.sizes"]
    assert changed(f"{KEY}.training_share=0.5") == ["tuning.sizes", "search.sizes"]
    assert changed("finetuning.pooling=first") == ["tuning.sizes", "search.sizes"]
    assert changed(f"{KEY}.judged_by=sst2") == ["search.sizes"]
    assert changed(f"{KEY}.held_out_share=0.2") == ["search.sizes"]
    assert changed(f"{KEY}.scaling.workers=2", f"{KEY}.checkpoint_every=3") == []
    assert changed("phases.2.supernet.steps=9") == ["supernet.sizes", "tuning.sizes", "search.sizes"]
    assert changed("finetuning.actors=2", "finetuning.max_eval_examples=7", f"{KEY}.teachers=tuned") == [
        "tuning.sizes",  # by its teachers alone, whose dev scores are of other rows then
        "search.sizes",
    ]
    alone = stage_signatures(checked(f"{KEY}.teachers=null"))
    for change in ("finetuning.max_eval_examples=7", "finetuning.epochs=5", "finetuning.learning_rate=0.1"):
        assert stage_signatures(checked(f"{KEY}.teachers=null", change))["tuning.sizes"] == alone["tuning.sizes"]


def test_data_that_changes_is_learnt_anew(recipe_file, tmp_path):
    described = yaml.safe_load(recipe_file.read_text())
    described["finetuning"]["data"] = str(tmp_path / "data")
    in_tuned_phases(tmp_path / "data")
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(described))
    plan = checked_plan(load_recipe(str(own)), tmp_path / "run")
    before = stage_signatures(plan)
    file = tmp_path / "data" / "glue" / "stsb" / "train.parquet"
    file.write_bytes((tmp_path / "data" / "glue" / "stsb" / "validation.parquet").read_bytes())
    after = stage_signatures(plan)
    assert before["tuning.sizes"] != after["tuning.sizes"]
    assert before["supernet.sizes"] == after["supernet.sizes"]


def test_plans_say_what_is_learnt_and_who_scores(recipe_file, tmp_path):
    stages = {stage.name: stage for stage in plan_recipe(load_recipe(str(recipe_file)), tmp_path / "run").stages}
    tuning = stages["tuning.sizes"]
    assert tuning.steps == 12
    assert "tune the supernet on sst2, stsb together" in tuning.work
    assert "beside a teacher that was tuned on it" in tuning.work
    assert tuning.work.endswith("about 120 rows, each 0.75 times")
    assert stages["search.sizes"].work.startswith(
        "score, by the tuned supernet on the last 25 % of stsb's training rows, candidates of"
    )
    assert stages["task_teachers"].work.startswith("2 fine-tunings: the teacher on sst2, stsb")
    limited = load_recipe(str(recipe_file), ["finetuning.max_train_examples=16", f"{KEY}.teachers=null"])
    work = {stage.name: stage.work for stage in plan_recipe(limited, tmp_path / "run").stages}["tuning.sizes"]
    assert work.endswith("about 32 rows, each 3 times")
    assert "teacher" not in work


def test_the_phase_has_the_evaluator_of_its_task(checked):
    plan = checked("search.candidates_per_trial=auto")
    phase = phases_of(plan.recipe)[-1]
    factory = candidate_factory(plan, phase)
    assert isinstance(factory, TaskEvaluatorFactory)
    assert factory.task.name == "stsb"
    assert factory.weights == plan.folder.path / "tuning.sizes" / "supernet.safetensors"
    assert factory.heads == plan.folder.path / "tuning.sizes" / "heads.safetensors"
    assert factory.slices == TrainSlices(0.75, 0.25)
    assert (factory.settings.pooling, factory.settings.tuning.layer_weight) == ("mean", 1.0)
    assert replace(factory, threads=0) == factory_without_training(plan, phase, 0), "whoever asks how well it ranks"
    assert trial_size_of(plan, phase, 1000, 4) == 125, "twenty rows are nothing: the search's share decides"
    assert trial_size_of(plan, phase, 8, 4) == 1
    assert 0 < scoring_seconds(plan, phase, 10) < scoring_seconds(plan, phase, 1000)


def test_scores_are_known_by_the_tuning_and_by_who_judges(checked):
    outputs = {name: {"signature": name} for name in ("supernet", "supernet.sizes", "tuning.sizes")}

    def known_by(*changes, given=outputs):
        return scored_by(phases_of(checked(*changes).recipe)[-1], given)

    first = known_by()
    assert first == known_by(f"{KEY}.scaling.workers=2")
    assert len({first, known_by(f"{KEY}.judged_by=sst2"), known_by(f"{KEY}.held_out_share=0.1")}) == 3
    assert first != known_by(given=outputs | {"tuning.sizes": {"signature": "another"}})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["finetuning.pooling=own"], "finetuning.pooling: found own, expected first or mean, since a supernet"),
        (
            ["finetuning.distil=false"],
            f"{KEY}.teachers: found tuned, but by the section finetuning nobody imitates a teacher; expected distil",
        ),
        (["finetuning.data=/nowhere"], "finetuning.data: '/nowhere' is not a folder"),
        ([f"{KEY}.tasks=[stsb, rte]"], "finetuning.data: task 'rte': "),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(checked, changes, line):
    with pytest.raises((UserError, TrainingInputError)) as raised:
        checked(*changes)
    assert str(raised.value).startswith(line)
    assert len(str(raised.value).splitlines()) == 1


def test_a_task_ranks_no_candidates_by_hidden_tokens(checked):
    plan = checked()
    recipe = plan.recipe.model_copy(update={"search": plan.recipe.search.model_copy(update={"rank_by": "masked_lm"})})
    with pytest.raises(UserError, match=r"^search.rank_by: found masked_lm, but phases.2 scores by a task"):
        check_scoring(replace(plan, recipe=recipe), phases_of(recipe)[-1])


def test_workers_that_do_not_divide_the_batch_are_refused(recipe_file):
    with pytest.raises(UserError, match=r"tuning.batch_size: found 8, expected a multiple of scaling.workers"):
        load_recipe(str(recipe_file), [f"{KEY}.scaling.workers=3"])
