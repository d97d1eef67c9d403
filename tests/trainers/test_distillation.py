from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainers.distillation_tasks import make_distillation, make_settings, make_student
from tests.trainers.teachers import make_teacher, save_teacher
from trainers.distillation import DistillationFactory, Student, model_tensors, student_tensors
from trainers.losses import embedding_cosine, masked_mse, masked_variance
from trainers.students import load_student
from trainers.task import load_checkpoint, run_locally, save_checkpoint

OTHER = "E48|32:F-M|16:M"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("students")


def weights(task):
    return {name: tensor.clone() for name, tensor in task.tensors().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def perfect_student(folder, teacher, label="twin"):
    teacher.model.save_pretrained(folder / label)
    return Student(label, "", folder / label, ((1, 1), (2, 2)))


# --- several students at once ----------------------------------------------------------------------------------------


def test_students_trained_together_equal_students_trained_alone(folder, teacher, corpus):
    """Bit for bit, with dropout: company changes nothing."""
    students = [make_student(folder, label="a"), make_student(folder, OTHER, label="b")]
    together = make_distillation(students, teacher, corpus)
    rows = run_locally(together, report_every=3)
    for student in students:
        alone = make_distillation([student], teacher, corpus)
        own_rows = run_locally(alone, report_every=3)
        mine = student_tensors(together.tensors(), student.label)
        assert same(mine, student_tensors(alone.tensors(), student.label))
        losses = [(row["step"], row["loss"], row["relative_mse"]) for row in rows if row["subject"] == student.label]
        assert losses == [(row["step"], row["loss"], row["relative_mse"]) for row in own_rows]


def test_students_have_dropout_of_their_own_step(folder, teacher, corpus):
    """Dropout is on (otherwise the test above would say little) and differs from step to step."""
    task = make_distillation([make_student(folder)], teacher, corpus)
    losses = []
    for step in (0, 0, 1):
        fresh = make_distillation([make_student(folder)], teacher, corpus)
        fresh.corpus = type("Same", (), {"step_rows": lambda *_: corpus.step_rows(0, 6, 5)})()
        fresh.step(step)
        losses.append(fresh.rows(1)[0]["loss"])
    assert task.learners[0].training
    assert losses[0] == losses[1] != losses[2]


def test_the_loss_falls(folder, teacher, corpus):
    students = [make_student(folder, label="a", dropout=0.0), make_student(folder, OTHER, label="b", dropout=0.0)]
    task = make_distillation(students, teacher, corpus, total_steps=60, learning_rate=5e-3, train_embeddings=True)
    rows = run_locally(task, report_every=15)
    for label in ("a", "b"):
        losses = [row["loss"] for row in rows if row["subject"] == label]
        assert len(losses) == 4
        assert losses[-1] < 0.75 * losses[0], losses


# --- what learns and what does not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("train_embeddings", [False, True])
def test_frozen_embeddings_stay(folder, teacher, corpus, train_embeddings):
    task = make_distillation(
        [make_student(folder)], teacher, corpus, train_embeddings=train_embeddings, weight_decay=0.5
    )
    before = weights(task)
    run_locally(task)
    for name, tensor in task.tensors().items():
        may_move = train_embeddings or "model.embeddings." not in name
        assert torch.equal(tensor, before[name]) != may_move or "key.bias" in name, name


def test_the_teacher_gets_no_gradient_and_stays(folder, corpus):
    teacher = make_teacher(with_head=True)
    modules = torch.nn.ModuleList([teacher.model, teacher.masked_lm_head])
    before = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    student = make_student(folder, label="headed", with_head=True)
    run_locally(make_distillation([student], teacher, corpus, objective="masked_lm", hidden_weight=1.0))
    assert all(parameter.grad is None for parameter in modules.parameters())
    assert same(before, modules.state_dict())


def test_a_perfect_student_has_nothing_to_learn(folder, corpus):
    teacher = make_teacher(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    fresh = make_distillation([perfect_student(folder, teacher)], teacher, corpus)
    fresh.step(0)
    (first,) = fresh.rows(1)
    assert first["loss"] == pytest.approx(0.0, abs=1e-6)
    assert first["relative_mse"] == 0.0


# --- the loss --------------------------------------------------------------------------------------------------------


def first_loss(student, teacher, corpus, **changes):
    task = make_distillation([student], teacher, corpus, **changes)
    task.step(0)
    return task.rows(1)[0]["loss"]


@pytest.fixture
def plain_student(folder):
    """Without dropout and of the teacher's width throughout, so that its loss can be computed beside it."""
    return make_student(folder, "E32|32:M-F|32:S3", label="plain", dropout=0.0)


def test_the_parts_of_the_loss(plain_student, teacher, corpus):
    ids_BT, mask_BT = corpus.step_rows(0, 6, 5)
    model = load_student(plain_student.folder)
    with torch.no_grad():
        states = model(ids_BT, mask_BT, output_hidden_states=True).hidden_states
    targets = teacher.states(ids_BT, mask_BT, [0, 2, 4])

    def relative(index):
        error = masked_mse(states[index], targets[index], mask_BT)
        return float(error / masked_variance(targets[index], mask_BT))

    cosine = 1 - float(embedding_cosine(states[2], targets[2], mask_BT).mean())
    off = {"hidden_weight": 0.0, "intermediate_weight": 0.0, "embedding_weight": 0.0}
    for changes, expected in [
        ({"hidden_weight": 2.0}, 2.0 * relative(2)),
        ({"intermediate_weight": 3.0}, 3.0 * (relative(0) + relative(1)) / 2),
        ({"embedding_weight": 4.0}, 4.0 * cosine),
    ]:
        found = first_loss(plain_student, teacher, corpus, **{**off, **changes})
        assert found == pytest.approx(expected, rel=1e-4)


def test_hidden_states_are_compared_on_text_without_masks(plain_student, corpus):
    expected = first_loss(plain_student, make_teacher(), corpus)
    assert first_loss(plain_student, make_teacher(with_head=True), corpus) == expected


# --- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "probes"),
    [
        ("E32|32:M|32:F", {}, []),
        ("E32|16:M|32:F", {}, ["1"]),
        ("E16|16:M|32:F", {}, ["0", "1"]),
        ("E16|32:M|16:F", {"projections": "paper"}, ["0", "last"]),
        ("E32|32:M|16:F", {}, []),  # the way back to the teacher's width is part of the model
    ],
)
def test_probes_stand_where_widths_differ(folder, teacher, corpus, text, options, probes):
    student = make_student(folder, text, label="probed", **options)
    task = make_distillation([student], teacher, corpus)
    assert sorted(task.learners[0].probes) == probes
    bare = make_distillation([student], teacher, corpus, intermediate_weight=0.0)
    assert sorted(bare.learners[0].probes) == [name for name in probes if name == "last"], "unused ones are not made"
    kept = model_tensors(task.tensors(), "probed")
    assert kept.keys() == load_student(student.folder).state_dict().keys()
    run_locally(task)
    model = load_student(student.folder)
    model.load_state_dict(model_tensors(task.tensors(), "probed"))


def test_probes_start_as_the_best_linear_guess(folder, teacher, corpus):
    student = make_student(folder, "E16|16:M|16:F", label="fitted", projections="paper", dropout=0.0)
    task = make_distillation([student], teacher, corpus, batch_size=40, learning_rate=0.0)
    task.step(0)
    assert task.rows(1)[0]["relative_mse"] < 1.0, "no worse than the teacher's mean"


# --- checkpoints, rows, factory --------------------------------------------------------------------------------------


def test_a_resumed_distillation_equals_an_uninterrupted_one(folder, tmp_path, corpus, teacher):
    students = [make_student(folder, "E16|16:M|16:F", label="a", projections="paper"), make_student(folder, OTHER, "b")]
    whole, first, resumed = (make_distillation(students, teacher, corpus) for _ in range(3))
    for step in range(6):
        whole.step(step)
    for step in range(3):
        first.step(step)
    save_checkpoint(first, tmp_path, 3, first.rows(3))
    steps_done, history = load_checkpoint(resumed, tmp_path)
    assert (steps_done, [row["subject"] for row in history]) == (3, ["a", "b"])
    for step in range(3, 6):
        resumed.step(step)
    assert same(weights(whole), weights(resumed))
    assert whole.rows(6)[0]["tokens"] == resumed.rows(6)[0]["tokens"]


def test_rows_say_whose_they_are_and_what_was_consumed(folder, teacher, corpus):
    students = [make_student(folder, label="a"), perfect_student(folder, teacher)]
    task = make_distillation(students, teacher, corpus)
    rows = run_locally(task, report_every=4)
    assert [(row["step"], row["subject"], row["arch_id"]) for row in rows] == [
        (step, student.label, student.arch_id) for step in (4, 6) for student in students
    ]
    assert rows[-1]["tokens"] == sum(int(corpus.step_rows(step, 6, 5)[1].sum()) for step in range(6))
    assert {row["stage"] for row in rows} == {"distillation"}
    assert all(row["tokens_per_second"] > 0 for row in rows)


def test_the_factory_makes_what_the_folders_say(folder, tmp_path, corpus_folder, teacher, corpus):
    save_teacher(tmp_path)
    students = (make_student(folder, label="a"), make_student(folder, OTHER, label="b"))
    factory = DistillationFactory(tmp_path, corpus_folder, students, make_settings())
    made, reference = factory(0, 1, torch.device("cpu")), make_distillation([*students], teacher, corpus)
    for task in (made, reference):
        run_locally(task)
    assert same(weights(made), weights(reference))
