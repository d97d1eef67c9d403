"""Identities of the two-part loss (item 16 of the paper notes' list)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

from trainers.tasks.batching import NO_LABEL
from trainers.tasks.losses import Imitation, fine_tuning_loss, imitation_loss, supervised_loss

KL = Imitation()
KINDS = ("classification", "regression", "tagging", "answering")


def batch(kind):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    mask_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    if kind == "classification":
        return draw(2, 3), draw(2, 3), torch.tensor([0, 2]), mask_BT
    if kind == "regression":
        return draw(2, 1), draw(2, 1), torch.tensor([1.0, 4.5]), mask_BT
    if kind == "tagging":
        labels_BT = torch.tensor([[NO_LABEL, 1, 0, 2], [2, NO_LABEL, NO_LABEL, NO_LABEL]])
        return draw(2, 4, 3), draw(2, 4, 3), labels_BT, mask_BT
    return draw(2, 4, 2), draw(2, 4, 2), torch.tensor([[1, 3], [0, 1]]), mask_BT


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_goes_from_the_task_alone_to_imitation_alone(kind):
    logits, soft, labels, mask_BT = batch(kind)
    own = supervised_loss(kind, logits, labels, mask_BT)
    imitation = imitation_loss(kind, logits, soft, labels, mask_BT, KL)
    for weight in (0.0, 0.25, 1.0):
        loss = fine_tuning_loss(kind, logits, labels, mask_BT, soft, weight, KL)
        torch.testing.assert_close(loss, (1 - weight) * own + weight * imitation)
    assert fine_tuning_loss(kind, logits, labels, mask_BT, None, 0.5, KL) == own


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_like_its_teacher_has_nothing_to_imitate(kind, temperature):
    logits, _, labels, mask_BT = batch(kind)
    assert (
        imitation_loss(kind, logits, logits.clone(), labels, mask_BT, Imitation(temperature=temperature)).abs() < 1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_teacher(kind):
    logits, soft, labels, mask_BT = batch(kind)
    logits.requires_grad_()
    soft.requires_grad_()
    fine_tuning_loss(kind, logits, labels, mask_BT, soft, 0.5, KL).backward()
    assert soft.grad is None
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_classes_by_hand():
    logits, soft = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    labels, mask_BT = torch.tensor([1]), torch.ones(1, 1)
    teacher = torch.softmax(soft, -1)
    divergence = (teacher * (teacher.log() - torch.tensor(0.5).log())).sum()
    loss = fine_tuning_loss("classification", logits, labels, mask_BT, soft, 0.5, KL)
    torch.testing.assert_close(loss, 0.5 * torch.tensor(2.0).log() + 0.5 * divergence)


@pytest.mark.parametrize("kind", ["tagging", "answering"])
def test_padding_counts_for_nothing(kind):
    logits, soft, labels, mask_BT = batch(kind)
    changed, changed_soft = logits.clone(), soft.clone()
    changed[1, 2:] += 7.0
    changed_soft[1, 2:] -= 7.0
    before = fine_tuning_loss(kind, logits, labels, mask_BT, soft, 0.5, KL)
    assert fine_tuning_loss(kind, changed, labels, mask_BT, changed_soft, 0.5, KL) == before


def test_the_layer_for_what_has_no_answer_adds_its_own_loss():
    """A third score, which counts at the first token alone: binary cross entropy, and the divergence of two classes."""
    logits, soft, labels, mask_BT = batch("answering")
    labels = torch.tensor([[1, 3], [0, 0]])
    answerable_B, soft_B = torch.tensor([0.7, -0.2]), torch.tensor([2.0, 1.0])
    with_layer, soft_layer = (
        torch.cat([spans, layer_B[:, None, None].expand(-1, 4, 1)], -1)
        for spans, layer_B in ((logits, answerable_B), (soft, soft_B))
    )
    own = F.binary_cross_entropy_with_logits(answerable_B, torch.tensor([1.0, 0.0]))
    expected = supervised_loss("answering", logits, labels, mask_BT) + own
    torch.testing.assert_close(supervised_loss("answering", with_layer, labels, mask_BT), expected)

    theirs, ours = torch.sigmoid(soft_B), torch.sigmoid(answerable_B)
    divergence = theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()
    spans = imitation_loss("answering", logits, soft, labels, mask_BT, KL)
    found = imitation_loss("answering", with_layer, soft_layer, labels, mask_BT, KL)
    torch.testing.assert_close(found, spans + divergence.mean())
    without = imitation_loss("answering", with_layer, soft, labels, mask_BT, KL)
    torch.testing.assert_close(without, spans + own, msg="where the teacher has no such layer, the labels teach it")
    assert imitation_loss("answering", with_layer, with_layer.clone(), labels, mask_BT, KL).abs() < 1e-6


# --- the imitation that EfficientBERT and TinyBERT use ---------------------------------------------------------------

SOFT = Imitation(loss="soft_cross_entropy")


def cross_entropy(logits, soft):
    return -torch.softmax(soft, -1) * torch.log_softmax(logits, -1)


def test_soft_cross_entropy_is_the_mean_over_the_classes_too():
    logits, soft, labels, mask_BT = batch("classification")
    products = cross_entropy(logits, soft)
    found = imitation_loss("classification", logits, soft, labels, mask_BT, SOFT)
    torch.testing.assert_close(found, products.mean())
    in_all = replace(SOFT, over_classes="sum")
    found = imitation_loss("classification", logits, soft, labels, mask_BT, in_all)
    torch.testing.assert_close(found, products.sum(-1).mean())
    divergence = imitation_loss("classification", logits, soft, labels, mask_BT, KL)
    entropy = cross_entropy(soft, soft).sum(-1).mean()
    torch.testing.assert_close(found, divergence + entropy)


def test_numbers_are_compared_with_the_teachers_or_with_the_labels():
    logits, soft, labels, mask_BT = batch("regression")
    gold = Imitation(numbers="labels")
    found = imitation_loss("regression", logits, soft, labels, mask_BT, gold)
    torch.testing.assert_close(found, (logits[:, 0] - labels).square().mean())
    assert found != imitation_loss("regression", logits, soft, labels, mask_BT, KL)
    changed = imitation_loss("regression", logits, soft + 1.0, labels, mask_BT, gold)
    assert changed == found, "the teacher plays no part"


@pytest.mark.parametrize("loss", ["kl", "soft_cross_entropy"])
def test_the_first_token_of_answers_can_be_left_out(loss):
    """EfficientBERT compares starts and ends without it; then nothing that is said of it matters."""
    logits, soft, labels, mask_BT = batch("answering")
    kept, hidden = Imitation(loss), Imitation(loss, first_token="hidden")
    moved, moved_soft = logits.clone(), soft.clone()
    moved[:, 0] += 3.0
    moved_soft[:, 0] -= 3.0
    found = imitation_loss("answering", logits, soft, labels, mask_BT, hidden)
    assert imitation_loss("answering", moved, moved_soft, labels, mask_BT, hidden) == found
    assert imitation_loss("answering", moved, soft, labels, mask_BT, kept) != imitation_loss(
        "answering", logits, soft, labels, mask_BT, kept
    )
    without = imitation_loss("answering", logits[:, 1:], soft[:, 1:], labels, mask_BT[:, 1:], Imitation(loss))
    share = 1.0 if loss == "kl" else 3 / 4  # a mean over four positions, one of which adds nothing
    torch.testing.assert_close(found, without * share)
