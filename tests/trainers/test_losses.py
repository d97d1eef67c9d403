from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.fidelity import Judgement, measure_fidelity
from trainers.losses import embedding_cosine, masked_mse, masked_variance, prediction_divergence, sentence_embeddings

MASK_BT = torch.tensor([[1, 1], [1, 0]])
TEACHER_BTD = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[5.0, 2.0], [99.0, 99.0]]])
STUDENT_BTD = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[4.0, 2.0], [-7.0, 0.0]]])


def test_squared_error_by_hand():
    # squared errors per token, mean over 2 dimensions: 4/2, 0, 1/2; three valid tokens
    assert masked_mse(STUDENT_BTD, TEACHER_BTD, MASK_BT).item() == pytest.approx((2.0 + 0.0 + 0.5) / 3)


def test_variance_by_hand():
    # valid tokens (1,0), (3,4), (5,2): means 3 and 2; variances 8/3 and 8/3
    assert masked_variance(TEACHER_BTD, MASK_BT).item() == pytest.approx(8 / 3)


def test_sentence_embeddings_by_hand():
    assert sentence_embeddings(TEACHER_BTD, MASK_BT).tolist() == [[2.0, 2.0], [5.0, 2.0]]


def test_cosine_by_hand():
    found = embedding_cosine(STUDENT_BTD, TEACHER_BTD, MASK_BT)
    first = (2 * 2 + 3 * 2) / (math.hypot(2, 3) * math.hypot(2, 2))
    second = (4 * 5 + 2 * 2) / (math.hypot(4, 2) * math.hypot(5, 2))
    assert found.tolist() == pytest.approx([first, second])


def test_divergence_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[math.log(3), 0.0], [5.0, 5.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert prediction_divergence(student, teacher).item() == pytest.approx(divergence / 2)
    # at temperature 2 the teacher says sqrt(3) : 1, and the result is multiplied by 4
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    warm = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert prediction_divergence(student, teacher, 2.0).item() == pytest.approx(4 * warm / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 8.0))
def test_a_prediction_does_not_diverge_from_itself(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 5, 11, generator=generator) * 4
    assert prediction_divergence(first, first, temperature).item() == pytest.approx(0.0, abs=1e-6)
    assert prediction_divergence(first, second, temperature).item() > 0
    # shifting all logits of a position by a constant says the same
    shifted = prediction_divergence(first + 3.0, second, temperature)
    assert shifted.item() == pytest.approx(prediction_divergence(first, second, temperature).item(), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_padding_is_ignored(seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 6, 4, generator=generator)
    mask_BT = (torch.arange(6)[None] < torch.tensor([6, 2, 1])[:, None]).long()
    junk = torch.where(mask_BT[..., None].bool(), 0.0, 1e6)
    for function in (masked_mse, embedding_cosine):
        assert torch.equal(function(student, teacher, mask_BT), function(student + junk, teacher - junk, mask_BT))
    for function in (masked_variance, sentence_embeddings):
        assert torch.equal(function(teacher, mask_BT), function(teacher + junk, mask_BT))
    for kind in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(masked_mse(student, teacher, mask_BT), masked_mse(student, teacher, mask_BT.to(kind)))


def test_losses_are_computed_in_float32():
    half = TEACHER_BTD.bfloat16()
    assert masked_mse(half, half, MASK_BT).dtype == torch.float32
    assert masked_variance(half, MASK_BT).dtype == torch.float32
    assert embedding_cosine(half, half, MASK_BT).dtype == torch.float32
    assert prediction_divergence(half[0], half[0]).dtype == torch.float32


# --- fidelity --------------------------------------------------------------------------------------------------------


def table_encoder(seed):
    """An encoder that looks the state of each token up."""
    table_VD = torch.randn(50, 8, generator=torch.Generator().manual_seed(seed)) + seed
    return lambda input_ids_BT, _: table_VD[input_ids_BT]


def make_rows(count=24):
    generator = torch.Generator().manual_seed(5)
    input_ids_BT = torch.randint(50, (count, 7), generator=generator)
    lengths_B = torch.randint(1, 8, (count, 1), generator=generator)
    return input_ids_BT, (torch.arange(7)[None] < lengths_B).long()


def judged_by(teacher, rows, size):
    return Judgement.of_teacher(teacher, zip(rows[0].split(size), rows[1].split(size), strict=True))


def test_the_teacher_is_perfectly_faithful_to_itself():
    fidelity = measure_fidelity(table_encoder(1), judged_by(table_encoder(1), make_rows(), 5))
    assert fidelity.cosine_similarity == pytest.approx(1.0, abs=1e-6)
    assert fidelity.relative_mse == 0.0
    assert fidelity.sequences == 24


def test_a_student_that_knows_only_the_mean_has_a_relative_error_of_one():
    rows = make_rows()
    teacher = table_encoder(1)
    mean_D = teacher(*rows)[rows[1].bool()].mean(0)
    fidelity = measure_fidelity(lambda ids, _: mean_D.expand(*ids.shape, 8), judged_by(teacher, rows, 5))
    assert fidelity.relative_mse == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 23])
def test_fidelity_does_not_depend_on_the_batch_size(size):
    student, teacher, rows = table_encoder(2), table_encoder(1), make_rows()
    whole = measure_fidelity(student, judged_by(teacher, rows, 24))
    found = measure_fidelity(student, judged_by(teacher, rows, size))
    assert found.cosine_similarity == pytest.approx(whole.cosine_similarity, rel=1e-6)
    assert found.relative_mse == pytest.approx(whole.relative_mse, rel=1e-6)
    expected = masked_mse(student(*rows), teacher(*rows), rows[1]) / masked_variance(teacher(*rows), rows[1])
    assert whole.relative_mse == pytest.approx(expected.item(), rel=1e-5)
