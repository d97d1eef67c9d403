"""What fine-tuning minimises: the task's own loss, and the difference from a teacher tuned on the task.

Shape legend: B batch, T tokens, C classes (2 for spans: start and end; a third, the same at every token, where a layer
tells whether there is an answer: its loss is added, as RoBERTa does for SQuAD 2.0).

NAS-BERT, equation 2, at the second stage: ``(1 - lambda) * task + lambda * KL(teacher, student)`` on the prediction
layer. A number (STS-B) has no distribution: there the squared error to the teacher's number takes the place of the KL.
EfficientBERT imitates alone (lambda is 1), by the soft cross entropy of TinyBERT, on STS-B against the gold labels, and
on SQuAD without the first token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from trainers.losses import prediction_divergence, soft_cross_entropy
from trainers.tasks.batching import NO_LABEL
from trainers.tasks.catalogue import Kind

_NEVER = -1e4
"""A score that no softmax notices: for padding, which cannot hold an answer."""


@dataclass(frozen=True)
class Imitation:
    """How a student imitates a teacher's predictions on a task.

    Attributes:
        loss: ``kl``: the divergence of the student's predictions from the teacher's; ``soft_cross_entropy``: their
            cross entropy (:func:`trainers.losses.soft_cross_entropy`).
        over_classes: of the soft cross entropy: its mean over the classes, or their sum.
        numbers: what numbers (STS-B) are compared with: the teacher's, or the gold labels.
        first_token: whether the first token counts among starts and ends of answers; that is where SQuAD 2.0's spans
            say that there is no answer.
        temperature: of the softmax.
    """

    loss: Literal["kl", "soft_cross_entropy"] = "kl"
    over_classes: Literal["mean", "sum"] = "mean"
    numbers: Literal["teacher", "labels"] = "teacher"
    first_token: Literal["kept", "hidden"] = "kept"
    temperature: float = 1.0

    def difference(self, logits: Tensor, soft: Tensor) -> Tensor:
        """How far predictions are from the teacher's; both ``[rows, C]``."""
        if self.loss == "kl":
            return prediction_divergence(logits, soft, self.temperature)
        return soft_cross_entropy(logits, soft, self.temperature, self.over_classes)


def supervised_loss(kind: Kind, logits: Tensor, labels: Tensor, mask_BT: Tensor) -> Tensor:
    """The task's own loss.

    Args:
        kind: of the task.
        logits: ``[B, C]`` or, for tags and spans, ``[B, T, C]``; spans with a third score have the binary layer.
        labels: ``[B]`` classes or numbers; ``[B, T]`` classes of tokens; ``[B, 2]`` first and last tokens.
        mask_BT: 1 for valid tokens.
    """
    if kind == "regression":
        return F.mse_loss(logits[:, 0], labels.to(logits.dtype))
    if kind == "classification":
        return F.cross_entropy(logits, labels)
    if kind == "tagging":
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL)
    starts_BT, ends_BT = _within(logits, mask_BT)
    loss = (F.cross_entropy(starts_BT, labels[:, 0]) + F.cross_entropy(ends_BT, labels[:, 1])) / 2
    if logits.shape[-1] < 3:
        return loss
    return loss + _answerability_loss(logits, labels)


def imitation_loss(
    kind: Kind, logits: Tensor, soft: Tensor, labels: Tensor, mask_BT: Tensor, imitation: Imitation
) -> Tensor:
    """How far a student's predictions are from its teacher's; least where they are the same.

    Args:
        kind: of the task.
        logits: the student's, as in :func:`supervised_loss`.
        soft: the teacher's, of the same shape; no gradient reaches them.
        labels: as there; tokens without a label are not compared.
        mask_BT: 1 for valid tokens.
        imitation: how they are compared.
    """
    soft = soft.detach()
    if kind == "regression":
        if imitation.numbers == "labels":
            return supervised_loss(kind, logits, labels, mask_BT)
        return F.mse_loss(logits[:, 0], soft[:, 0])
    if kind == "classification":
        return imitation.difference(logits, soft)
    if kind == "tagging":
        labelled = labels != NO_LABEL
        return imitation.difference(logits[labelled], soft[labelled])
    comparable_BT = mask_BT
    if imitation.first_token == "hidden":
        comparable_BT = mask_BT.clone()
        comparable_BT[:, 0] = 0
    pairs = zip(_within(logits, comparable_BT), _within(soft, comparable_BT), strict=True)
    loss = torch.stack([imitation.difference(ours, theirs) for ours, theirs in pairs]).mean()
    if logits.shape[-1] < 3:
        return loss
    if soft.shape[-1] < 3:  # a teacher without the layer has nothing to say of it: there the labels teach
        return loss + _answerability_loss(logits, labels)
    return loss + imitation.difference(_answerable(logits), _answerable(soft))


def _within(logits_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of starts and of ends, without any for padding."""
    starts_BT, ends_BT = logits_BTC[..., :2].masked_fill(mask_BT.unsqueeze(-1) == 0, _NEVER).unbind(-1)
    return starts_BT, ends_BT


def _answerability_loss(logits_BT3: Tensor, labels_B2: Tensor) -> Tensor:
    """Binary cross entropy; windows whose answer is the first token have none."""
    return F.cross_entropy(_answerable(logits_BT3), (labels_B2 != 0).any(-1).long())


def _answerable(logits_BT3: Tensor) -> Tensor:
    """The binary layer's score as those of two classes, ``[B, 2]``: no answer, an answer."""
    answerable_B = logits_BT3[:, 0, 2]
    return torch.stack([torch.zeros_like(answerable_B), answerable_B], dim=-1)


def fine_tuning_loss(
    kind: Kind,
    logits: Tensor,
    labels: Tensor,
    mask_BT: Tensor,
    soft: Tensor | None,
    distillation_weight: float,
    imitation: Imitation,
) -> Tensor:
    """The whole loss (equation 2): the task's alone without a teacher or with a weight of 0.

    Args:
        kind: of the task.
        logits: the student's.
        labels: as in :func:`supervised_loss`.
        mask_BT: 1 for valid tokens.
        soft: the teacher's logits; ``None`` without a teacher.
        distillation_weight: lambda; 1 is imitation alone.
        imitation: how predictions are compared.
    """
    if soft is None or distillation_weight == 0:
        return supervised_loss(kind, logits, labels, mask_BT)
    imitated = imitation_loss(kind, logits, soft, labels, mask_BT, imitation)
    if distillation_weight == 1:
        return imitated
    own = supervised_loss(kind, logits, labels, mask_BT)
    return (1 - distillation_weight) * own + distillation_weight * imitated
