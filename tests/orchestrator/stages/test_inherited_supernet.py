"""A supernet that is cut out of another run's: what is checked before anything runs, its signature, one training."""

from __future__ import annotations

import io
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from orchestrator.errors import UserError
from orchestrator.pipeline import checked_plan, plan_recipe, stage_signatures
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory, StageRecord
from orchestrator.stages.base import RunContext
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.supernet import SupernetStage
from orchestrator.stages.teacher import TeacherStage
from orchestrator.stages.workshop import Workshop
from spaces.registry import load_space
from tests.orchestrator.pipeline.efficient_bert_run import EFFICIENT_BERT, OPTIONS
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher, write_teacher
from trainers.corpus import PackedCorpus
from trainers.losses import masked_mse

WIDE = OPTIONS | {"hidden_size": 28}
DEEPER = OPTIONS | {"hidden_size": 20, "layers": 4}

pytestmark = pytest.mark.timeout(600)


def write_recipe(place, file, options, **changes):
    found = {"teacher": {"source": str(place / "teacher")}}
    found["corpus"] = EFFICIENT_BERT["corpus"] | {"source": str(place / "text.txt")}
    found["space"] = {"name": "efficient_bert", "options": options}
    file.write_text(yaml.safe_dump(EFFICIENT_BERT | found | changes, sort_keys=False), encoding="utf-8")
    return file


@pytest.fixture
def finished(place, tmp_path):
    """A run whose supernet is trained, as far as its folder tells: 2 blocks of 28, every weight another."""
    recipe = load_recipe(str(write_recipe(place, tmp_path / "wide.yaml", WIDE)))
    folder = RunDirectory(tmp_path / "wide")
    folder.open(recipe)
    shutil.copytree(place / "teacher", folder.teacher)
    torch.manual_seed(0)
    folder.supernet_weights.parent.mkdir()
    save_file(load_space("efficient_bert", WIDE, shape_of_teacher()).supernet().state_dict(), folder.supernet_weights)
    folder.write_stage_record("supernet", StageRecord("0" * 16, "8 steps", 1.0, {"steps": 8}))
    return folder


@pytest.fixture
def checked(place, finished, tmp_path):
    """Plans a run that inherits; the folder is named as the recipe file sees it."""
    file = write_recipe(
        place, tmp_path / "deeper.yaml", DEEPER, supernet=EFFICIENT_BERT["supernet"] | {"inherit": "wide"}
    )
    return lambda *changes: checked_plan(load_recipe(str(file), changes), tmp_path / "run")


def test_the_folder_starts_at_the_recipe_s(checked, finished):
    assert checked().recipe.supernet.inherit == str(finished.path)


def test_a_training_begins_with_the_other_run_s_weights(checked, finished, local_ray):
    """4 blocks of 20 out of 2 blocks of 28; its steps are so small that nothing moves far."""
    plan = checked("supernet.learning_rate=1.0e-9", "supernet.weight_decay=0.0")
    outputs = {}
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, local_ray, "f" * 16, outputs)
        for stage in (TeacherStage(), CorpusStage(), SupernetStage()):
            with Progress("lines", io.StringIO(), interval=0).stage(stage.name) as progress:
                outputs[stage.name] = {**stage.run(context, progress).outputs, "signature": "f" * 16}
    given, taken = load_file(finished.supernet_weights), load_file(plan.folder.supernet_weights)
    torch.testing.assert_close(taken["projection.weight"], given["projection.weight"][:, :20], rtol=0, atol=1e-6)
    for name in ("attention.query.weight", "feed_forwards.1.linear1.weight"):
        for block in range(4):
            expected = given[f"blocks.{block // 2}.{name}"][:20, :20]
            torch.testing.assert_close(taken[f"blocks.{block}.{name}"], expected, rtol=0, atol=1e-6)


def test_students_can_be_extracted_from_the_teacher(checked):
    """They start at what a supernet at the teacher has for them, not at what training made of it."""
    plan = checked("distillation.initialisation=extracted")
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, None, "f" * 16, {})
        for stage in (TeacherStage(), CorpusStage()):
            with Progress("lines", io.StringIO(), interval=0).stage(stage.name) as progress:
                stage.run(context, progress)
    workshop = Workshop(context)
    plain = plan.space.supernet().largest()
    batch = PackedCorpus(plan.folder.validation).even_batches(1, 16)[0]
    with torch.no_grad():
        (theirs_BTD,) = workshop.teacher.states(*batch, [4])
        errors = {
            start: float(masked_mse(workshop.build(plain, start)(*batch).last_hidden_state, theirs_BTD, batch[1]))
            for start in ("extracted", "scratch")
        }
    assert errors["extracted"] < 0.6 * errors["scratch"]


def test_plans_say_where_a_supernet_starts(checked):
    def work(*changes):
        plan = checked(*changes)
        return {stage.name: stage.work for stage in plan_recipe(plan.recipe, plan.folder.path).stages}["supernet"]

    assert work().startswith("train the supernet (inherited weights) layer by layer")
    assert work("supernet.inherit=null").startswith("train the supernet (teacher init) layer by layer")
    assert work("supernet.inherit=null", "supernet.init=paper").startswith("train the supernet (paper init)")


def test_the_weights_decide_the_signature_not_where_they_lie(checked, finished, tmp_path):
    def signature(*changes):
        return stage_signatures(checked(*changes))["supernet"]

    before = signature()
    shutil.copytree(finished.path, tmp_path / "moved")
    assert signature(f"supernet.inherit={tmp_path / 'moved'}") == before
    starts = {before, signature("supernet.inherit=null"), signature("supernet.inherit=null", "supernet.init=paper")}
    assert len(starts) == 3
    weights = load_file(finished.supernet_weights)
    weights["projection.bias"] = weights["projection.bias"] + 1.0
    save_file(weights, finished.supernet_weights)
    assert signature() != before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["supernet.inherit=absent"], "supernet.inherit: {folder}absent: found a folder without a run"),
        (["space.options.hidden_size=32"], "supernet.inherit: {folder}wide does not fit; weights of embeddings"),
        (["space.options.layers=1"], "supernet.inherit: {folder}wide does not fit; layers: found 1, expected 2 or a"),
        (["space.options.embedding_size=4"], "supernet.inherit: {folder}wide does not fit; embedding_size: found 4"),
        (["supernet.init=paper"], "supernet.init: found paper, expected nothing where inherit is set"),
    ],
)
def test_what_cannot_be_inherited_is_told_in_one_line(checked, tmp_path, monkeypatch, changes, line):
    monkeypatch.chdir(tmp_path)  # where paths in overrides start
    with pytest.raises(UserError) as raised:
        checked(*changes)
    assert line.format(folder=f"{tmp_path}/") in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_run_of_another_space_or_teacher_or_without_a_supernet_is_refused(checked, finished, place, tmp_path):
    def refused():
        with pytest.raises(UserError) as raised:
            checked()
        return str(raised.value)

    shutil.rmtree(finished.teacher)
    write_teacher(finished.teacher, max_positions=20)
    assert "whose teacher has max_positions 20, expected 24 as this run's" in refused()
    shutil.copy(place / "microscopic.yaml", finished.path / "recipe.yaml")
    assert "a run of the space 'nas_bert', expected one of 'efficient_bert'" in refused()
    finished.forget_stage_record("supernet")
    assert "found a run without a trained supernet" in refused()


def test_a_supernet_of_blocks_cannot_inherit(place, tmp_path):
    with pytest.raises(UserError, match=r"supernet.inherit: found .*, expected null, since the blocks of 'nas_bert'"):
        checked_plan(load_recipe(str(place / "microscopic.yaml"), ["supernet.inherit=wide"]), tmp_path / "run")
