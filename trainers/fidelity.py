"""How faithful a student is to its teacher on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.losses import embedding_cosine, masked_mse

Encode = Callable[[Tensor, Tensor], Tensor]
"""Maps input ids and attention mask to the last hidden state, ``hidden_BTD``."""


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the teacher over all sequences, not averaged per batch.

    Attributes:
        cosine_similarity: mean cosine of the sentence embeddings (mean of valid tokens), 1 for the teacher itself.
        relative_mse: squared error of the token states divided by the variance of the teacher's, 0 for the teacher.
        sequences: how many were compared.
    """

    cosine_similarity: float
    relative_mse: float
    sequences: int


@dataclass(frozen=True)
class Judgement:
    """Held-out batches with the teacher's answers, against which any number of students are compared.

    Attributes:
        batches: (input ids, attention mask, the teacher's last hidden state) of each batch.
    """

    batches: tuple[tuple[Tensor, Tensor, Tensor], ...]

    @classmethod
    @torch.inference_mode()
    def of_teacher(cls, teacher: Encode, batches: Iterable[tuple[Tensor, Tensor]]) -> Judgement:
        """Run the teacher once on every batch of (input ids, attention mask)."""
        return cls(tuple((input_ids_BT, mask_BT, teacher(input_ids_BT, mask_BT)) for input_ids_BT, mask_BT in batches))


@torch.inference_mode()
def measure_fidelity(student: Encode, judgement: Judgement) -> Fidelity:
    """Compare a student with the teacher."""
    cosine = error = 0.0
    sequences = tokens = 0
    sum_D = squares_D = torch.zeros(())
    for input_ids_BT, mask_BT, teacher_BTD in judgement.batches:
        student_BTD = student(input_ids_BT, mask_BT)
        visible_ND = teacher_BTD[mask_BT.to(torch.bool)].double()
        cosine += embedding_cosine(student_BTD, teacher_BTD, mask_BT).sum().item()
        error += masked_mse(student_BTD, teacher_BTD, mask_BT).item() * len(visible_ND)
        sum_D, squares_D = sum_D + visible_ND.sum(0).cpu(), squares_D + visible_ND.square().sum(0).cpu()
        tokens += len(visible_ND)
        sequences += len(input_ids_BT)
    variance_D = squares_D / tokens - (sum_D / tokens).square()
    return Fidelity(cosine / sequences, error / tokens / variance_D.mean().item(), sequences)
