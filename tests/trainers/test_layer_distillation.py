"""Stand-alone students distilled layer by layer, beside the other objectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from tests.spaces.efficient_bert.microscopic import make_model
from tests.spaces.microscopic import shaken
from tests.trainers.distillation_tasks import make_distillation, make_settings, make_student
from tests.trainers.teachers import make_teacher
from trainers.distillation import Student, model_tensors, student_tensors
from trainers.errors import TrainingInputError
from trainers.layer_losses import layer_losses
from trainers.layer_recording import run_layers
from trainers.losses import masked_mse, masked_variance
from trainers.students import load_student
from trainers.task import load_checkpoint, run_locally, save_checkpoint

LAYERS = {"objective": "layer_states"}


def save_bert_student(folder: Path, label: str = "bert", dropout: float = 0.0, **sizes: int) -> Student:
    chosen = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, **sizes}
    config = BertConfig(
        vocab_size=99,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **chosen,
    )
    torch.manual_seed(7)
    shaken(BertModel(config, add_pooling_layer=False), seed=7).save_pretrained(folder / label)
    return Student(label, "", folder / label, ())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_that_of_all_layers(tmp_path, teacher, corpus):
    """Of a student as wide as the teacher, computed beside it; its layers learn from layers 2 and 4."""
    student = save_bert_student(tmp_path)
    for padding in ("counted", "masked"):
        task = make_distillation([student], teacher, corpus, layer_padding=padding, **LAYERS)
        assert task.learners[0].layers == (2, 4)
        assert not task.learners[0].probes
        task.step(0)
        (row,) = task.rows(1)
        input_ids_BT, mask_BT = corpus.step_rows(0, 6, 5)
        with torch.no_grad():
            ours = run_layers(load_student(student.folder), input_ids_BT, mask_BT)
        theirs = teacher.layer_states(input_ids_BT, mask_BT, [2, 4])
        assert row["loss"] == pytest.approx(float(layer_losses(ours, theirs, mask_BT, padding).total), rel=1e-5)
        error = masked_mse(ours.hidden_BTD[-1], theirs.hidden_BTD[-1], mask_BT)
        expected = float(error / masked_variance(theirs.hidden_BTD[-1], mask_BT))
        assert row["relative_mse"] == pytest.approx(expected, rel=1e-5)


def test_a_twin_of_the_teacher_has_nothing_to_learn(tmp_path, corpus):
    teacher = make_teacher(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    teacher.model.save_pretrained(tmp_path / "twin")
    task = make_distillation([Student("twin", "", tmp_path / "twin", ())], teacher, corpus, **LAYERS)
    assert task.learners[0].layers == (1, 2, 3, 4)
    task.step(0)
    (row,) = task.rows(1)
    assert (row["loss"], row["relative_mse"]) == (0.0, 0.0)


def test_a_narrow_student_learns_through_one_map_that_all_its_states_share(tmp_path, teacher, corpus):
    """Winner and rival together: other depths, other widths, one pass of the teacher."""
    narrow = save_bert_student(tmp_path, "narrow", hidden_size=16)
    deep = save_bert_student(tmp_path, "deep", num_hidden_layers=4)
    uneven = save_bert_student(tmp_path, "uneven", num_hidden_layers=3)
    students = [narrow, deep, uneven]
    task = make_distillation(students, teacher, corpus, total_steps=60, learning_rate=5e-3, **LAYERS)
    assert [learner.layers for learner in task.learners] == [(2, 4), (1, 2, 3, 4), (1, 3, 4)]
    assert [list(learner.probes) for learner in task.learners] == [["layers"], [], []]
    passes = []
    handle = teacher.model.embeddings.register_forward_hook(lambda *_: passes.append(1))
    rows = run_locally(task, report_every=20)
    handle.remove()
    assert len(passes) == 60
    for student in students:
        mine = [row for row in rows if row["subject"] == student.label]
        assert mine[-1]["loss"] < 0.7 * mine[0]["loss"]
        model = load_student(student.folder)
        model.load_state_dict(model_tensors(task.tensors(), student.label))


def test_company_changes_nothing_and_a_resumed_training_is_the_undisturbed_one(tmp_path, teacher, corpus):
    students = [
        save_bert_student(tmp_path, "a", dropout=0.1, hidden_size=16),
        save_bert_student(tmp_path, "b", dropout=0.1, num_hidden_layers=4),
    ]
    together = make_distillation(students, teacher, corpus, **LAYERS)
    run_locally(together)
    for student in students:
        alone = make_distillation([student], teacher, corpus, **LAYERS)
        run_locally(alone)
        mine = student_tensors(together.tensors(), student.label)
        assert same(mine, student_tensors(alone.tensors(), student.label))
    first, second = (make_distillation(students, teacher, corpus, **LAYERS) for _ in range(2))
    for step in range(3):
        first.step(step)
    save_checkpoint(first, tmp_path / "checkpoint", 3, [])
    load_checkpoint(second, tmp_path / "checkpoint")
    for step in range(3, 6):
        second.step(step)
    assert same(dict(together.tensors()), dict(second.tensors()))


def test_a_winner_of_efficient_bert_learns_through_its_own_map_beside_its_rival(tmp_path, teacher, corpus):
    """Its states come in the teacher's width, by the map that is part of it and that learns, too."""
    winner = make_model(hidden_dropout_prob=0.0)
    winner.save_pretrained(tmp_path / "winner")
    students = [Student("winner", "", tmp_path / "winner", ()), save_bert_student(tmp_path, num_hidden_layers=4)]
    task = make_distillation(students, teacher, corpus, total_steps=60, learning_rate=5e-3, **LAYERS)
    learner = task.learners[0]
    assert learner.layers == (2, 4)
    assert not learner.probes
    text = corpus.step_rows(0, 6, 5)
    states = learner(*text).layers
    embeddings_BTD, hidden, scores = learner.model.layer_states(*text)
    torch.testing.assert_close(states.embeddings_BTD, embeddings_BTD)
    torch.testing.assert_close(states.hidden_BTD, hidden)
    torch.testing.assert_close(states.scores_BHTT, scores)
    before = learner.model.projection.weight.clone()
    rows = run_locally(task, report_every=20)
    mine = [row["loss"] for row in rows if row["subject"] == "winner"]
    assert mine[-1] < 0.7 * mine[0]
    assert not torch.equal(learner.model.projection.weight, before)
    model = load_student(tmp_path / "winner")
    model.load_state_dict(model_tensors(task.tensors(), "winner"))


def test_weights_of_the_other_objective_add_to_the_loss(tmp_path, teacher, corpus):
    student = replace(save_bert_student(tmp_path), alignment=((1, 1),))
    losses = []
    for weight in (None, 0.0, 2.0):
        task = make_distillation([student], teacher, corpus, hidden_weight=weight, intermediate_weight=weight, **LAYERS)
        task.step(0)
        losses.append(task.rows(1)[0]["loss"])
    assert losses[0] == losses[1] < losses[2]


def test_the_embeddings_learn_unless_they_are_told_not_to():
    assert make_settings(**LAYERS).resolved(teacher_has_head=False).train_embeddings
    assert not make_settings(train_embeddings=False, **LAYERS).resolved(teacher_has_head=True).train_embeddings
    assert make_settings(**LAYERS).resolved(teacher_has_head=True).objective == "layer_states"


def test_other_heads_than_the_teachers_are_refused(tmp_path, teacher, corpus):
    with pytest.raises(TrainingInputError, match="heads: found 2, expected the teacher's 4"):
        make_distillation([save_bert_student(tmp_path, num_attention_heads=2)], teacher, corpus, **LAYERS)


def test_a_student_without_one_attention_a_layer_is_refused(tmp_path, teacher, corpus):
    with pytest.raises(TrainingInputError, match="a student of type NasBertModel has not one attention in each"):
        make_distillation([make_student(tmp_path, "E32|32:S3|32:M-F")], teacher, corpus, **LAYERS)
