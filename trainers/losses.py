"""Losses and errors over valid tokens, shared by all training and evaluation.

Shape legend: B batch, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor


def masked_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared error over the dimensions of valid tokens (NAS-BERT, equation 1; padding left out)."""
    error_BT = (student_BTD.float() - teacher_BTD.float()).square().mean(-1)
    weight_BT = mask_BT.to(error_BT.dtype)
    return (error_BT * weight_BT).sum() / weight_BT.sum()


def masked_variance(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Variance of a hidden state over valid tokens, averaged over dimensions: what an MSE is relative to."""
    weight_BT1 = mask_BT.to(torch.float32).unsqueeze(-1)
    count = weight_BT1.sum()
    mean_D = (hidden_BTD.float() * weight_BT1).sum((0, 1)) / count
    return ((hidden_BTD.float() - mean_D).square() * weight_BT1).sum() / count / hidden_BTD.shape[-1]


def sentence_embeddings(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of the valid tokens' states, ``[B, D]``: how sentence encoders such as all-MiniLM pool."""
    weight_BT1 = mask_BT.to(torch.float32).unsqueeze(-1)
    return (hidden_BTD.float() * weight_BT1).sum(1) / weight_BT1.sum(1)


def embedding_cosine(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Cosine similarity of the sentence embeddings of two hidden states, one value a sequence."""
    return F.cosine_similarity(
        sentence_embeddings(student_BTD, mask_BT), sentence_embeddings(teacher_BTD, mask_BT), dim=-1
    )


def prediction_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean KL divergence of the student's predictions from the teacher's (NAS-BERT, equation 2), ``[positions, V]``.

    The usual factor of temperature² keeps the gradient's size independent of the temperature.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    over_classes: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Cross entropy of the student's predictions under the teacher's soft labels, ``[positions, C]``; a mean over rows.

    TinyBERT's form, and EfficientBERT's: the mean goes over the classes too, which divides a cross entropy by their
    number, and there is no factor of temperature². ``sum`` is the cross entropy proper, whose gradient is that of
    :func:`prediction_divergence` at a temperature of 1.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    products = -torch.softmax(teacher_logits.float() / temperature, dim=-1) * student
    return products.mean() if over_classes == "mean" else products.sum(-1).mean()


def masked_lm_loss(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Mean cross entropy, in nats, of predicted tokens: the maximum-likelihood term of NAS-BERT's equation 2."""
    return F.cross_entropy(logits_NV.float(), labels_N)


def two_stage_loss(likelihood: Tensor | None, divergence: Tensor | None, kl_share: float) -> Tensor:
    """``(1 - lambda) MLE + lambda KL`` (NAS-BERT, equation 2).

    At either end of ``kl_share`` the other term plays no part, not even as a zero, and need not be there.

    Args:
        likelihood: MLE, the masked-LM loss; ``None`` only where ``kl_share`` is 1.
        divergence: KL of the student's predictions from the teacher's; ``None`` only where ``kl_share`` is 0.
        kl_share: lambda, from 0 to 1.
    """
    if kl_share == 0:
        assert likelihood is not None
        return likelihood
    assert divergence is not None
    if kl_share == 1:
        return divergence
    assert likelihood is not None
    return (1 - kl_share) * likelihood + kl_share * divergence
