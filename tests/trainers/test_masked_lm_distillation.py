"""Two-stage distillation, stage one: students that predict masked tokens (NAS-BERT, equation 2)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertForMaskedLM

from tests.spaces.efficient_bert.microscopic import make_model as make_efficient_bert
from tests.trainers.distillation_tasks import make_distillation, make_settings, make_student
from tests.trainers.teachers import make_teacher, save_teacher
from trainers.distillation import (
    DistillationFactory,
    Student,
    finished_student,
    model_tensors,
    student_tensors,
)
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse, masked_variance
from trainers.masking import Masking
from trainers.optimisation import apply_step, make_optimiser
from trainers.students import (
    encoder_of,
    load_own_tensors,
    load_student,
    load_whole_student,
    own_tensors,
    predict_tokens,
    ties_embeddings,
    with_masked_lm_head,
)
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.uniform import UniformArchitecture, extract_uniform

WIDE = "E32|32:M-F|32:S3"
NARROW = "E16|16:M|24:F"


@pytest.fixture(scope="module")
def teacher():
    """With a head, and without dropout, so that a twin of it says the same."""
    return make_teacher(with_head=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("students")


@pytest.fixture(scope="module")
def student(folder):
    return make_student(folder, WIDE, label="wide", with_head=True, dropout=0.0)


@pytest.fixture(scope="module")
def narrow(folder):
    return make_student(folder, NARROW, label="narrow", with_head=True, projections="paper")


def make(students, teacher, corpus, **changes):
    return make_distillation(students, teacher, corpus, **{"objective": "masked_lm", **changes})


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weights(task):
    return {name: tensor.clone() for name, tensor in task.tensors().items()}


def twin(folder, teacher, label="twin"):
    masked_lm = with_masked_lm_head(load_bert(folder, teacher), teacher.masked_lm_head)
    masked_lm.save_pretrained(folder / label)
    return Student(label, "", folder / label, ())


def load_bert(folder, teacher):
    teacher.model.save_pretrained(folder / "bare")
    return AutoModel.from_pretrained(folder / "bare", add_pooling_layer=False)


def masked_batch(teacher, corpus, step, probability=0.15):
    """What the first worker reads in a step."""
    masking = Masking.of_tokenizer(teacher.tokenizer, probability)
    return masking.mask(*corpus.step_rows(step, 6, 5), hash((5, step, 0)))


def first_row(task):
    task.step(0)
    return task.rows(1)[0]


# --- equation 2 ------------------------------------------------------------------------------------------------------


def test_share_0_is_masked_language_modelling_and_nothing_else(student, teacher, corpus):
    """Bit for bit a training that has never heard of a teacher."""
    task = make([student], teacher, corpus, kl_share=0.0)
    teacher.model.register_forward_pre_hook(forbid := lambda *_: pytest.fail("the teacher was asked"))
    try:
        for step in range(3):
            task.step(step)
    finally:
        hooks = teacher.model._forward_pre_hooks
        hooks.pop(next(key for key, hook in hooks.items() if hook is forbid))

    model = load_whole_student(student.folder).train()
    settings = make_settings(objective="masked_lm").optimiser
    optimiser = make_optimiser(model, settings)
    for step in range(3):
        batch = masked_batch(teacher, corpus, step)
        states_BTD = model.encoder(batch.input_ids_BT, batch.attention_mask_BT).last_hidden_state
        logits_NV = model.predict(states_BTD[batch.chosen_BT])
        torch.nn.functional.cross_entropy(logits_NV, batch.labels_BT[batch.chosen_BT]).backward()
        apply_step(optimiser, settings, step, [model])
    assert same(model_tensors(task.tensors(), "wide"), own_tensors(model))


def test_share_1_is_the_divergence_alone(student, teacher, corpus):
    row = first_row(make([student], teacher, corpus, kl_share=1.0))
    batch = masked_batch(teacher, corpus, 0)
    model = load_whole_student(student.folder)
    with torch.no_grad():
        states_BTD = model.encoder(batch.input_ids_BT, batch.attention_mask_BT).last_hidden_state
        mine_NV = model.predict(states_BTD[batch.chosen_BT]).log_softmax(-1)
        (last_BTD,) = teacher.states(batch.input_ids_BT, batch.attention_mask_BT, [4])
        theirs_NV = teacher.masked_lm_head(last_BTD[batch.chosen_BT]).log_softmax(-1)
        divergence = (theirs_NV.exp() * (theirs_NV - mine_NV)).sum(-1).mean()
    assert row["loss"] == row["kl_divergence"] == pytest.approx(divergence.item(), rel=1e-5)
    labels_elsewhere = make([student], teacher, corpus, kl_share=1.0)
    labels_elsewhere._masking = Relabelling(labels_elsewhere._masking)
    reference = make([student], teacher, corpus, kl_share=1.0)
    for task in (labels_elsewhere, reference):
        run_locally(task)
    assert same(weights(labels_elsewhere), weights(reference)), "labels play no part"


class Relabelling:
    """Hides the same tokens but asks for others."""

    def __init__(self, masking):
        self.masking = masking

    def mask(self, *arguments):
        batch = self.masking.mask(*arguments)
        batch.labels_BT.fill_(7)
        return batch


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_shares_in_between_are_a_weighted_mean(student, teacher, corpus, share):
    row = first_row(make([student], teacher, corpus, kl_share=share))
    expected = (1 - share) * row["masked_lm_loss"] + share * row["kl_divergence"]
    assert row["loss"] == pytest.approx(expected, rel=1e-6)
    assert row["masked_lm_loss"] > 0.1
    assert row["kl_divergence"] > 0.1
    assert 0 <= row["masked_lm_accuracy"] <= 1
    assert row["relative_mse"] is None


@pytest.mark.parametrize("positions", ["masked", "all"])
def test_a_twin_of_the_teacher_does_not_diverge(folder, teacher, corpus, positions):
    row = first_row(make([twin(folder, teacher)], teacher, corpus, kl_positions=positions))
    assert row["kl_divergence"] == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_gets_no_gradient(student, narrow, teacher, corpus):
    modules = torch.nn.ModuleList([teacher.model, teacher.masked_lm_head])
    before = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    run_locally(make([student, narrow], teacher, corpus, hidden_weight=1.0, kl_positions="all"))
    assert all(parameter.grad is None for parameter in modules.parameters())
    assert same(before, modules.state_dict())


def test_divergence_covers_masked_positions_or_all_valid_ones(student, teacher, corpus):
    batch = masked_batch(teacher, corpus, 0)
    model = load_whole_student(student.folder)
    with torch.no_grad():
        mine_BTV = model(batch.input_ids_BT, batch.attention_mask_BT).logits.log_softmax(-1)
        (last_BTD,) = teacher.states(batch.input_ids_BT, batch.attention_mask_BT, [4])
        theirs_BTV = teacher.masked_lm_head(last_BTD).log_softmax(-1)
    divergence_BT = (theirs_BTV.exp() * (theirs_BTV - mine_BTV)).sum(-1)
    rows = {name: first_row(make([student], teacher, corpus, kl_positions=name)) for name in ("masked", "all")}
    for name, where_BT in (("masked", batch.chosen_BT), ("all", batch.attention_mask_BT.bool())):
        assert rows[name]["kl_divergence"] == pytest.approx(divergence_BT[where_BT].mean().item(), rel=1e-4)
    assert rows["all"]["masked_lm_loss"] == pytest.approx(rows["masked"]["masked_lm_loss"], rel=1e-5)


def test_temperature_softens_the_divergence_alone(student, teacher, corpus):
    cold, warm = (first_row(make([student], teacher, corpus, temperature=value)) for value in (1.0, 4.0))
    assert cold["masked_lm_loss"] == warm["masked_lm_loss"]
    assert cold["kl_divergence"] != warm["kl_divergence"]


def test_hidden_states_can_be_added(student, teacher, corpus):
    plain = first_row(make([student], teacher, corpus))
    row = first_row(make([student], teacher, corpus, hidden_weight=2.0))
    batch = masked_batch(teacher, corpus, 0)
    with torch.no_grad():
        state_BTD = load_student(student.folder)(batch.input_ids_BT, batch.attention_mask_BT).last_hidden_state
    (last_BTD,) = teacher.states(batch.input_ids_BT, batch.attention_mask_BT, [4])
    relative = masked_mse(state_BTD, last_BTD, batch.attention_mask_BT) / masked_variance(
        last_BTD, batch.attention_mask_BT
    )
    assert row["relative_mse"] == pytest.approx(relative.item(), rel=1e-5)
    assert row["loss"] == pytest.approx(plain["loss"] + 2.0 * row["relative_mse"], rel=1e-5)


def test_a_step_in_which_chance_masks_nothing(student, teacher, corpus):
    row = first_row(make([student], teacher, corpus, mask_probability=1e-9))
    assert 0 < row["loss"] < float("inf")


def test_the_loss_falls(folder, teacher, corpus):
    students = [make_student(folder, text, text[:3], with_head=True, dropout=0.0) for text in (WIDE, NARROW)]
    task = make(students, teacher, corpus, total_steps=80, learning_rate=5e-3, mask_probability=0.3)
    rows = run_locally(task, report_every=20)
    for label in {row["subject"] for row in rows}:
        losses = [row["loss"] for row in rows if row["subject"] == label]
        assert losses[-1] < 0.93 * losses[0], losses


# --- which objective -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "has_head", "found"),
    [
        ("auto", True, "masked_lm"),
        ("auto", False, "hidden_states"),
        ("masked_lm", True, "masked_lm"),
        ("hidden_states", True, "hidden_states"),
    ],
)
def test_the_objective_follows_the_teacher(objective, has_head, found):
    bare = {"train_embeddings": None, "hidden_weight": None, "intermediate_weight": None, "embedding_weight": None}
    resolved = make_settings(**bare, objective=objective).resolved(has_head)
    assert resolved.objective == found
    assert resolved.predicts == (found == "masked_lm") == resolved.train_embeddings
    weights = (resolved.hidden_weight, resolved.intermediate_weight, resolved.embedding_weight)
    assert weights == ((0.0, 0.0, 0.0) if resolved.predicts else (1.0, 0.3, 1.0))
    given = make_settings(objective=objective, hidden_weight=0.7, train_embeddings=False).resolved(has_head)
    assert (given.hidden_weight, given.train_embeddings) == (0.7, False)


def test_a_teacher_without_a_head_cannot_be_asked_for_predictions(student, corpus):
    with pytest.raises(TrainingInputError) as raised:
        make([student], make_teacher(), corpus)
    assert str(raised.value) == (
        "distillation.objective: found masked_lm with kl_share 0.5, but the teacher has no masked-LM head to learn "
        "from; use hidden_states or auto, a teacher with that head, or kl_share: 0"
    )
    assert first_row(make([student], make_teacher(), corpus, kl_share=0.0))["loss"] > 0


def test_a_student_without_a_head_cannot_predict(folder, teacher, corpus):
    with pytest.raises(TrainingInputError, match="a student of type NasBertModel has no masked-LM head"):
        make([make_student(folder, WIDE, label="headless")], teacher, corpus)


@pytest.mark.parametrize("train", [False, True])
def test_embeddings_learn_with_predictions_unless_told_otherwise(narrow, teacher, corpus, train):
    task = make([narrow], teacher, corpus, weight_decay=0.5, **({} if train else {"train_embeddings": False}))
    before = weights(task)
    run_locally(task)
    moved = {name for name, tensor in task.tensors().items() if not torch.equal(tensor, before[name])}
    assert any("model.encoder.embeddings." in name for name in moved) == train
    assert any("model.head." in name for name in moved)


# --- company, checkpoints, folders -----------------------------------------------------------------------------------


def uniform(folder, teacher, corpus, label="uniform"):
    cut = extract_uniform(teacher.model, UniformArchitecture(2, 40), *corpus.even_batches(1, 16)[0])
    with_masked_lm_head(cut, teacher.masked_lm_head).save_pretrained(folder / label)
    return Student(label, "", folder / label, ())


def test_students_trained_together_equal_students_trained_alone(folder, narrow, teacher, corpus):
    students = [narrow, uniform(folder, teacher, corpus)]
    together = make(students, teacher, corpus)
    run_locally(together)
    for one in students:
        alone = make([one], teacher, corpus)
        run_locally(alone)
        assert same(student_tensors(together.tensors(), one.label), student_tensors(alone.tensors(), one.label))


def test_a_resumed_distillation_equals_an_uninterrupted_one(folder, tmp_path, narrow, teacher, corpus):
    """With tied tables of both kinds of students, which a checkpoint holds once."""
    students = [narrow, uniform(folder, teacher, corpus)]
    whole, first, resumed = (make(students, teacher, corpus, embedding_weight=0.5) for _ in range(3))
    for step in range(6):
        whole.step(step)
    for step in range(3):
        first.step(step)
    save_checkpoint(first, tmp_path, 3, first.rows(3))
    load_checkpoint(resumed, tmp_path)
    for step in range(3, 6):
        resumed.step(step)
    assert same(weights(whole), weights(resumed))


def test_finished_students_have_what_was_learned(folder, tmp_path, narrow, teacher, corpus):
    students = (narrow, uniform(folder, teacher, corpus))
    teacher.save(tmp_path / "teacher")
    task = make(students, teacher, corpus)
    run_locally(task)
    batch = corpus.even_batches(1, 4)[0]
    for one, learner in zip(students, task.learners, strict=True):
        model = finished_student(one.folder, task.tensors(), one.label)
        with torch.no_grad():
            assert torch.equal(model(*batch).logits, learner.model.eval()(*batch).logits)
        model.save_pretrained(tmp_path / one.label)
        again = load_whole_student(tmp_path / one.label)
        with torch.no_grad():
            assert torch.equal(model(*batch).logits, again(*batch).logits)
            states_BTD = load_student(tmp_path / one.label)(*batch).last_hidden_state
            assert torch.equal(encoder_of(again)(*batch).last_hidden_state, states_BTD)


def test_the_factory_makes_what_the_folders_say(tmp_path, narrow, corpus_folder, corpus):
    save_teacher(tmp_path, with_head=True)
    settings = make_settings(objective="auto")
    made = DistillationFactory(tmp_path, corpus_folder, (narrow,), settings)(0, 1, torch.device("cpu"))
    reference = make([narrow], make_teacher(with_head=True), corpus)
    for task in (made, reference):
        run_locally(task)
    assert made.settings.predicts
    assert same(weights(made), weights(reference))


# --- heads -----------------------------------------------------------------------------------------------------------


def test_a_cut_bert_keeps_the_teacher_s_head(folder, teacher, corpus):
    one = uniform(folder, teacher, corpus, label="cut")
    model = load_whole_student(one.folder)
    assert isinstance(model, BertForMaskedLM)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    hidden_ND = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.cls(hidden_ND), teacher.masked_lm_head(hidden_ND))
    table_VD = teacher.model.embeddings.word_embeddings.weight
    assert teacher.masked_lm_head.predictions.decoder.weight is table_VD, "the teacher's own tie is untouched"


@pytest.mark.parametrize(("text", "fits"), [(WIDE, True), (NARROW, False)])
def test_a_student_s_head_starts_at_the_teacher_s_where_it_fits(folder, teacher, text, fits):
    encoder = load_student(make_student(folder, text, label="start", projections="paper").folder)
    head = with_masked_lm_head(encoder, teacher.masked_lm_head).head
    theirs = teacher.masked_lm_head.predictions
    assert torch.equal(head.bias, theirs.bias)
    same_transform = head.transform.weight.shape == theirs.transform.dense.weight.shape and torch.equal(
        head.transform.weight, theirs.transform.dense.weight
    )
    assert same_transform == fits
    assert torch.equal(head.norm.weight, theirs.transform.LayerNorm.weight) if fits else (head.norm.weight == 1).all()


@pytest.mark.parametrize("embedding_size", [32, 8])
def test_every_family_of_models_takes_a_head(teacher, embedding_size):
    """Tied to its own token table; it starts at the teacher's where that has the teacher's width."""
    model = with_masked_lm_head(make_efficient_bert(embedding_size=embedding_size), teacher.masked_lm_head)
    assert ties_embeddings(model)
    assert predict_tokens(model, torch.zeros(3, 32)).shape == (3, 99)
    transform, theirs = model.head.transform.weight, teacher.masked_lm_head.predictions.transform.dense.weight
    assert transform.shape == (embedding_size, 32)
    assert (transform.shape == theirs.shape and torch.equal(transform, theirs)) == (embedding_size == 32)


def test_tied_tensors_are_kept_once_and_foreign_ones_refused(folder, teacher, corpus):
    model = load_whole_student(uniform(folder, teacher, corpus, label="tied").folder)
    own = own_tensors(model)
    assert "bert.embeddings.word_embeddings.weight" in own
    assert "cls.predictions.decoder.weight" not in own
    assert len(model.state_dict()) == len(own) + 2
    assert ties_embeddings(model)
    assert ties_embeddings(model.base_model) is None
    model.config.tie_word_embeddings = False
    assert ties_embeddings(BertForMaskedLM(model.config)) is False
    with pytest.raises(RuntimeError, match="weights of another model: "):
        load_own_tensors(model, {name: own[name] for name in list(own)[1:]})
