"""How students and baselines start, as the recipe says; without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import BertForMaskedLM, BertModel

from orchestrator.recipe import load_recipe
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.distillation import _Preparation, trainers_settings
from orchestrator.stages.evaluation import count_parameters
from orchestrator.stages.training import remove_abandoned
from orchestrator.stages.workshop import Workshop
from spaces.huggingface import NasBertForMaskedLM, NasBertModel
from tests.spaces.microscopic import make_space
from tests.trainers.corpora import make_corpus
from tests.trainers.teachers import make_teacher
from trainers.students import load_whole_student

TEXT = "E32|32:M-F|32:S3"


@pytest.fixture
def context(tmp_path):
    """A run whose teacher and corpus are finished."""

    def make(with_head=True, *changes, budgets=("half",), text=TEXT):
        folder = RunDirectory(tmp_path / "run")
        make_teacher(with_head).save(folder.teacher)
        make_corpus(folder.corpus)
        (tmp_path / "recipe.yaml").write_text("name: tiny\n")
        recipe = load_recipe(str(tmp_path / "recipe.yaml"), [f"distillation.{change}" for change in changes])
        space = make_space(dropout=0.1)
        chosen = {budget: {"architecture": text} for budget in budgets}
        return SimpleNamespace(recipe=recipe, folder=folder, space=space, outputs={"selection": {"chosen": chosen}})

    return make


def prepared(context):
    students = _Preparation(context).prepare_all(pytest.fail)
    return {one.student.label: (one, load_whole_student(one.student.folder)) for one in students}


@pytest.mark.parametrize(
    ("with_head", "objective", "own", "bert"),
    [
        (True, "auto", NasBertForMaskedLM, BertForMaskedLM),
        (True, "hidden_states", NasBertModel, BertModel),
        (False, "auto", NasBertModel, BertModel),
    ],
)
def test_winner_and_baseline_get_a_head_together_or_none(context, with_head, objective, own, bert):
    made = prepared(context(with_head, "initialisation=extracted", f"objective={objective}"))
    assert type(made["half"][1]) is own
    assert type(made["half-uniform"][1]) is bert
    assert {one.initialisation for one, _ in made.values()} == {"extracted"}
    if with_head and objective == "auto":
        bias = make_teacher(with_head=True).masked_lm_head.predictions.bias
        assert torch.equal(made["half"][1].head.bias, bias)
        assert torch.equal(made["half-uniform"][1].cls.predictions.bias, bias)


def test_from_scratch_nothing_is_the_teacher_s_for_winner_and_baseline_alike(context):
    made = prepared(context(True, "initialisation=scratch"))
    assert {one.initialisation for one, _ in made.values()} == {"scratch"}
    theirs = {tensor.shape: tensor for tensor in make_teacher(with_head=True).model.state_dict().values()}
    for _, model in made.values():
        for name, tensor in model.state_dict().items():
            if tensor.shape in theirs and tensor.ndim > 1:
                assert not torch.equal(tensor, theirs[tensor.shape]), name
    again = prepared(context(True, "initialisation=scratch"))
    for label, (_, model) in made.items():
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again[label][1].state_dict()[name]), "a random start depends on the seed alone"
    config = made["half-uniform"][1].config
    assert config.hidden_dropout_prob == 0.1, "the baseline trains with the winner's dropout"


def test_budgets_that_chose_the_same_share_one_student_and_one_baseline(context):
    run = context(True, "initialisation=scratch", budgets=("half", "also", "other"))
    run.outputs["selection"]["chosen"]["other"] = {"architecture": "E32|32:M-F|32:M-F"}
    students = _Preparation(run).prepare_all(pytest.fail)
    assert [(one.label, one.budget, one.same_as) for one in students] == [
        ("half", "half", None),
        ("half-uniform", "half", None),
        ("also", "also", "half"),
        ("also-uniform", "also", "half-uniform"),
        ("other", "other", None),
        ("other-uniform", "other", None),
    ]
    assert students[2].student is students[0].student
    built = {path.name for path in run.folder.student("half").parent.iterdir()}
    assert built == {"half", "half-uniform", "other", "other-uniform"}


@pytest.mark.parametrize(
    ("limit", "text", "matched_on"),
    [
        ("parameters", "E32|32:M-F|32:M-F", "parameters"),
        ("parameters", "E16|32:M-F|32:M-F", "parameters"),
        ("parameters", "E16|24:M|24:F1", "encoder_parameters"),  # no BERT with wider embeddings is that small
        ("encoder_parameters", "E16|32:M-F|32:M-F", "encoder_parameters"),
    ],
)
def test_a_baseline_is_as_large_as_the_winner_in_what_the_budget_limits(context, limit, text, matched_on):
    run = context(True, "initialisation=scratch")
    budget = {"name": "half", limit: 10**9}
    run.recipe = run.recipe.model_validate(run.recipe.model_dump() | {"budgets": [budget]})
    run.outputs["selection"]["chosen"]["half"] = {"architecture": text}
    (winner, model), (uniform, baseline) = prepared(run).values()
    assert (winner.matched_on, uniform.matched_on) == (None, matched_on)
    cost = run.space.cost(run.space.parse(text))
    total, behind = count_parameters(baseline.base_model)
    found, wanted = (total, cost.parameters) if matched_on == "parameters" else (behind, cost.encoder_parameters)
    assert found == pytest.approx(wanted, rel=0.01), "or it is no equal"
    assert count_parameters(model.base_model)[0] == cost.parameters


def test_a_winner_below_all_uniform_ones_has_no_baseline(context):
    """What a one-shot search finds may be as small as it likes; the run goes on without a control then."""
    notices = []
    run = context(True, "initialisation=scratch", text="E16|16:S3|16:S3")
    students = _Preparation(run).prepare_all(notices.append)
    assert [one.student.label for one in students] == ["half"]
    (notice,) = notices
    assert notice.startswith("'half' has no uniform baseline: no uniform BERT of width")


@pytest.mark.parametrize("importance", ["variance", "taylor", "random"])
def test_what_is_extracted_follows_the_importance(context, importance):
    workshop = Workshop(context(True, "initialisation=extracted", f"importance={importance}"))
    assert (workshop.importance is None) == (importance == "variance")
    model = workshop.build(workshop.context.space.parse("E32|16:M|16:F1"), "extracted")
    other = Workshop(context(True, "initialisation=extracted", "importance=variance"))
    plain = other.build(other.context.space.parse("E32|16:M|16:F1"), "extracted")
    kept = [torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)]
    assert all(kept) == (importance == "variance")


@pytest.mark.parametrize(
    ("changes", "learn"),
    [
        ((), None),
        (("initialisation=scratch",), True),
        (("train_embeddings=false",), False),
        (("initialisation=scratch", "train_embeddings=true"), True),
    ],
)
def test_embeddings_from_scratch_always_learn(context, changes, learn):
    settings = trainers_settings(context(True, *changes).recipe.distillation, 1)
    assert settings.train_embeddings is learn
    assert settings.resolved(teacher_has_head=False).train_embeddings is bool(learn)


def test_what_other_settings_left_goes_and_nothing_else(context):
    folder = context().folder
    left = ["distillation-0123456789abcdef", f"distillation-{'1' * 16}-text", f"distillation-{'2' * 16}-{'3' * 16}"]
    others = ["distillation-mine", "notes", f"selection-{'4' * 16}", f"distillation-{'5' * 15}"]
    others += [f"my-distillation-{'6' * 16}"]
    for name in [*left, *others]:
        (folder.training / name).mkdir(parents=True)
        (folder.training / name / "weights").write_bytes(b"1234")
    (folder.training / f"distillation-{'7' * 16}").write_bytes(b"a file of somebody's")
    assert remove_abandoned(folder, "distillation") == (3, 12)
    assert {path.name for path in folder.training.iterdir()} == {*others, f"distillation-{'7' * 16}"}
    assert remove_abandoned(folder, "supernet") == (0, 0)
