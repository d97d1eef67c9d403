"""One-shot searches that start at a distilled student: an export of components, and a BERT with fewer layers."""

from __future__ import annotations

import shutil

import pytest
import yaml

from orchestrator.export import export_architecture
from orchestrator.latency_table import LatencyTable
from orchestrator.latency_table.files import space_of
from orchestrator.opened_run import open_run
from orchestrator.pipeline import checked_plan, plan_recipe, stage_signatures
from orchestrator.recipe import load_recipe
from orchestrator.run_directory import RunDirectory
from spaces.errors import SpaceError
from tests.orchestrator.pipeline.components_run import ONE_SHOT, OPTIONS, components_recipe
from tests.orchestrator.pipeline.microscopic_run import RECIPE, write_teacher
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.without_ray import without_ray
from trainers.errors import TrainingInputError

pytestmark = pytest.mark.timeout(900)
STEPS = 8


def recipe_from(folder, start, **options):
    """A short run that starts at a student."""
    one_shot = ONE_SHOT | {"sweep": [], "start": str(start), "distribution_rate": 1.0, "cost": "latency_ms"}
    described = components_recipe(
        name="started",
        space={"name": "components", "options": OPTIONS | options},
        supernet=RECIPE["supernet"] | {"steps": STEPS, "checkpoint_every": 4, "report_every": 2, "oneshot": one_shot},
        budgets=[{"name": "found", "choose": "oneshot"}],
    )
    file = folder / "started.yaml"
    file.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return file


def run_of(recipe, folder):
    started = Run(recipe, folder)
    with without_ray():
        return FinishedRun(started.recipe, started.folder, started.start())


@pytest.fixture(scope="module")
def bert_run(place, local_ray, tmp_path_factory):
    """A student of two layers under a teacher of four; its folder is gone when the run is over."""
    student = write_teacher(tmp_path_factory.mktemp("student") / "bert", num_layers=2)
    run = run_of(recipe_from(place, student), tmp_path_factory.mktemp("started") / "run")
    shutil.rmtree(student)
    return run


def test_a_smaller_bert_is_searched_while_the_teacher_is_imitated(bert_run):
    trained = bert_run.table("training")
    assert trained[trained["stage"] == "supernet"]["step"].max() == STEPS
    chosen = bert_run.table("selections")
    assert chosen[chosen["chosen"]]["architecture"].iloc[0].count("|") == 1, "two layers, as the student"
    assert bert_run.table("models")["cosine_similarity"].notna().all()


def test_the_run_opens_without_the_student(bert_run, tmp_path):
    run = open_run(bert_run.folder)
    assert run.space.options.shape.num_layers == 2
    text = str(run.space.smallest())
    assert (export_architecture(bert_run.folder, text, "hf", tmp_path / "out") / "config.json").is_file()


def test_the_latency_table_is_of_the_students_space(bert_run):
    """Random networks to check it by are drawn from there."""
    record = RunDirectory(bert_run.folder).stage_record("latency")
    measured = space_of(LatencyTable.from_json(record.outputs["latency_table"]), bert_run.folder)
    assert measured.options.shape.num_layers == 2


def test_a_student_of_other_sizes_is_measured_anew(place, tmp_path):
    signatures = [
        stage_signatures(checked_plan(load_recipe(str(recipe_from(place, student))), tmp_path / "run"))["latency"]
        for student in (
            write_teacher(tmp_path / "one", num_layers=2),
            write_teacher(tmp_path / "same", num_layers=2),
            write_teacher(tmp_path / "other", num_layers=3),
        )
    ]
    assert signatures[0] == signatures[1] != signatures[2]


def test_an_export_is_searched_on_within_itself(bert_run, place, tmp_path):
    """The export of a run, of another shape than its teacher's, becomes the supermodel of the next one."""
    exported = bert_run.folder / "models" / "found"
    with pytest.raises(SpaceError, match=r"space\.options\.within") as raised:
        run_of(recipe_from(place, exported), tmp_path / "refused")
    assert "\n" not in str(raised.value)
    chosen = bert_run.table("selections")
    text = str(chosen[chosen["chosen"]]["architecture"].iloc[0])
    run = run_of(recipe_from(place, exported, within=text), tmp_path / "run")
    again = run.table("selections")
    found = open_run(run.folder).space.parse(again[again["chosen"]]["architecture"].iloc[0])
    assert open_run(run.folder).space.contains(found)


def test_what_does_not_compare_is_refused_before_anything_runs(place, tmp_path):
    narrow = write_teacher(tmp_path / "narrow", hidden_size=16)
    with pytest.raises(TrainingInputError, match=r"^supernet\.oneshot\.start: the hidden_size of .* is 16, expected"):
        plan_recipe(load_recipe(str(recipe_from(place, narrow))), tmp_path / "run")
    with pytest.raises(TrainingInputError, match=r"^supernet\.oneshot\.start: '.*' has no config\.json"):
        plan_recipe(load_recipe(str(recipe_from(place, tmp_path / "nowhere"))), tmp_path / "run")
