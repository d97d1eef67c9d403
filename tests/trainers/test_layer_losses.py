"""Layer-wise losses, the layer map and the soft cross entropy (items 16 to 19 of EfficientBERT's list)."""

from __future__ import annotations

import pytest
import torch

from spaces.layer_states import LayerStates
from trainers.errors import TrainingInputError
from trainers.layer_losses import check_heads, layer_losses, layer_map, score_mse, some_blocks, state_mse
from trainers.losses import prediction_divergence, soft_cross_entropy

B, T, H, D = 2, 4, 3, 5
MASK_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
PADDED_KEYS_BHTT = (MASK_BT == 0)[:, None, None, :].expand(B, H, T, T)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(seed):
    return draw(B, H, T, T, seed=seed) - 10_000.0 * PADDED_KEYS_BHTT


def states(blocks=2, seed=0):
    hidden = tuple(draw(B, T, D, seed=seed + 10 * block) for block in range(1, blocks + 1))
    return LayerStates(draw(B, T, D, seed=seed), hidden, tuple(scores(seed + 5 * block) for block in range(blocks)))


# --- the layer map ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (6, 12, (2, 4, 6, 8, 10, 12)),
        (12, 12, tuple(range(1, 13))),
        (4, 12, (3, 6, 9, 12)),
        (1, 12, (12,)),
        (3, 6, (2, 4, 6)),
    ],
)
def test_blocks_learn_from_evenly_spaced_layers(student, teacher, expected):
    assert layer_map(student, teacher) == expected


@pytest.mark.parametrize(("student", "teacher"), [(5, 12), (12, 6), (0, 12)])
def test_blocks_that_do_not_divide_the_layers_are_refused_in_one_line(student, teacher):
    with pytest.raises(
        TrainingInputError, match=f"found {student}, expected a divisor of the teacher's {teacher}"
    ) as e:
        layer_map(student, teacher)
    assert "\n" not in str(e.value)


def test_other_heads_are_refused_in_one_line():
    check_heads(12, 12)
    with pytest.raises(TrainingInputError, match=r"heads: found 6, expected the teacher's 12: .* set it to 12"):
        check_heads(6, 12)


# --- what padding counts for -----------------------------------------------------------------------------------------


def test_padded_keys_add_nothing_to_the_error_of_scores():
    """Whatever stands there: the same on both sides, or not."""
    ours, theirs = scores(1), scores(2)
    for padding in ("counted", "masked"):
        before = score_mse(ours, theirs, MASK_BT, padding)
        assert score_mse(ours - 300.0 * PADDED_KEYS_BHTT, theirs, MASK_BT, padding) == before
    only_padded = torch.where(PADDED_KEYS_BHTT, theirs - 55.0, ours)
    assert score_mse(only_padded, ours, MASK_BT) == 0.0


def test_scores_by_hand_with_padding_counted():
    """Padded keys are zero on both sides but stay in the mean; rows of padded queries count like any other."""
    ours, theirs = scores(1), scores(2)
    error = torch.where(PADDED_KEYS_BHTT, torch.zeros(()), ours - theirs).square()
    torch.testing.assert_close(score_mse(ours, theirs, MASK_BT), error.sum() / (B * H * T * T))
    moved = ours.clone()
    moved[1, :, 3, 0] += 1.0  # a padded query looks at a token
    assert score_mse(moved, theirs, MASK_BT) != score_mse(ours, theirs, MASK_BT)
    assert score_mse(moved, theirs, MASK_BT, "masked") == score_mse(ours, theirs, MASK_BT, "masked")


def test_scores_by_hand_with_padding_masked():
    ours, theirs = scores(1), scores(2)
    pairs = [(ours[0] - theirs[0]).square().flatten(), (ours[1] - theirs[1])[:, :2, :2].square().flatten()]
    torch.testing.assert_close(score_mse(ours, theirs, MASK_BT, "masked"), torch.cat(pairs).mean())


def test_padded_positions_of_states_count_unless_they_are_masked():
    ours, theirs = draw(B, T, D, seed=1), draw(B, T, D, seed=2)
    torch.testing.assert_close(state_mse(ours, theirs, MASK_BT), (ours - theirs).square().mean())
    valid = MASK_BT.bool()
    torch.testing.assert_close(state_mse(ours, theirs, MASK_BT, "masked"), (ours - theirs)[valid].square().mean())
    moved = ours.clone()
    moved[1, 3] += 1.0
    assert state_mse(moved, theirs, MASK_BT) != state_mse(ours, theirs, MASK_BT)
    assert state_mse(moved, theirs, MASK_BT, "masked") == state_mse(ours, theirs, MASK_BT, "masked")


@pytest.mark.parametrize("padding", ["counted", "masked"])
def test_without_padding_both_are_one(padding):
    ours, theirs, all_BT = draw(B, H, T, T, seed=1), draw(B, H, T, T, seed=2), torch.ones(B, T)
    torch.testing.assert_close(score_mse(ours, theirs, all_BT, padding), (ours - theirs).square().mean())


# --- the sum of the terms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2, 6])
@pytest.mark.parametrize("padding", ["counted", "masked"])
def test_the_sum_has_a_term_for_the_embeddings_and_two_for_each_block(blocks, padding):
    ours, theirs = states(blocks, seed=1), states(blocks, seed=2)
    losses = layer_losses(ours, theirs, MASK_BT, padding)
    assert len(losses.terms) == 1 + 2 * blocks
    expected = state_mse(ours.embeddings_BTD, theirs.embeddings_BTD, MASK_BT, padding)
    for block in range(blocks):
        expected += state_mse(ours.hidden_BTD[block], theirs.hidden_BTD[block], MASK_BT, padding)
        expected += score_mse(ours.scores_BHTT[block], theirs.scores_BHTT[block], MASK_BT, padding)
    torch.testing.assert_close(losses.total, expected)


def test_a_student_that_is_its_teacher_has_no_loss_and_the_teacher_no_gradient():
    ours = states(3)
    assert layer_losses(ours, ours, MASK_BT).total == 0.0
    theirs = states(3, seed=9)
    for some in (ours, theirs):
        for tensor in (some.embeddings_BTD, *some.hidden_BTD, *some.scores_BHTT):
            tensor.requires_grad_()
    layer_losses(ours, theirs, MASK_BT).total.backward()
    assert all(t.grad is None for t in (theirs.embeddings_BTD, *theirs.hidden_BTD, *theirs.scores_BHTT))
    assert all(t.grad.abs().sum() > 0 for t in (ours.embeddings_BTD, *ours.hidden_BTD, *ours.scores_BHTT))


def test_some_blocks_of_a_teacher():
    whole = states(4)
    found = some_blocks(whole, [1, 3])
    assert found.embeddings_BTD is whole.embeddings_BTD
    assert [id(one) for one in found.hidden_BTD] == [id(whole.hidden_BTD[1]), id(whole.hidden_BTD[3])]
    assert [id(one) for one in found.scores_BHTT] == [id(whole.scores_BHTT[1]), id(whole.scores_BHTT[3])]


# --- soft labels -----------------------------------------------------------------------------------------------------


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy().mean()


@pytest.mark.parametrize("classes", [2, 7])
def test_a_student_like_its_teacher_has_the_teachers_entropy_over_the_classes(classes):
    logits = draw(6, classes)
    torch.testing.assert_close(soft_cross_entropy(logits, logits), entropy(logits) / classes)
    torch.testing.assert_close(soft_cross_entropy(logits, logits, over_classes="sum"), entropy(logits))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_sum_over_classes_is_the_divergence_and_the_teachers_entropy(temperature):
    """So both have the same gradient; the divergence has a factor of temperature² besides."""
    ours, theirs = draw(6, 4, seed=1), draw(6, 4, seed=2)
    divergence = prediction_divergence(ours, theirs, temperature) / temperature**2
    found = soft_cross_entropy(ours, theirs, temperature, "sum")
    torch.testing.assert_close(found, divergence + entropy(theirs / temperature))
    torch.testing.assert_close(soft_cross_entropy(ours, theirs, temperature), found / 4)
