"""Losses between the layers of a student and those of its teacher: what a warm-up distillation minimises.

Shape legend: B batch, T tokens, H attention heads, D hidden size of the teacher.

EfficientBERT's ``L_hidden`` (Dong et al., EMNLP Findings 2021, as its code has it): the squared error of the
embeddings, and of each block's attention scores and hidden state, each a mean over all its numbers, all with weight 1.
TinyBERT compares the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from spaces.layer_states import LayerStates
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse

Padding = Literal["counted", "masked"]
"""What padding counts for. ``counted``, as the paper's code: padded keys have the score 0 on both sides, but padded
queries and padded positions of hidden states count like text. ``masked``: only text counts, in every mean."""

PADDED_SCORE = -100.0
"""Scores up to this one are taken for those of padded keys."""


@dataclass(frozen=True)
class LayerLosses:
    """The terms of a comparison layer by layer, each a scalar.

    Attributes:
        embeddings: error of the embeddings.
        hidden: error of each block's hidden state.
        scores: error of each block's attention scores.
    """

    embeddings: Tensor
    hidden: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]

    @property
    def terms(self) -> tuple[Tensor, ...]:
        """All of them: 1 + 2 M for M blocks."""
        return (self.embeddings, *self.scores, *self.hidden)

    @property
    def total(self) -> Tensor:
        """``L_hidden``, the plain sum of the terms."""
        return torch.stack(self.terms).sum()


def layer_losses(
    student: LayerStates, teacher: LayerStates, mask_BT: Tensor, padding: Padding = "counted"
) -> LayerLosses:
    """Compare a student with the layers of its teacher that :func:`layer_map` names.

    Args:
        student: its states in the teacher's width.
        teacher: as many blocks, of as many heads; no gradient reaches it.
        mask_BT: 1 for valid tokens.
        padding: what padding counts for.
    """
    return LayerLosses(
        state_mse(student.embeddings_BTD, teacher.embeddings_BTD, mask_BT, padding),
        tuple(
            state_mse(ours_BTD, theirs_BTD, mask_BT, padding)
            for ours_BTD, theirs_BTD in zip(student.hidden_BTD, teacher.hidden_BTD, strict=True)
        ),
        tuple(
            score_mse(ours_BHTT, theirs_BHTT, mask_BT, padding)
            for ours_BHTT, theirs_BHTT in zip(student.scores_BHTT, teacher.scores_BHTT, strict=True)
        ),
    )


def state_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor, padding: Padding = "counted") -> Tensor:
    """Mean squared error of hidden states, over all positions or over text alone."""
    if padding == "masked":
        return masked_mse(student_BTD, teacher_BTD.detach(), mask_BT)
    return F.mse_loss(student_BTD.float(), teacher_BTD.detach().float())


def score_mse(student_BHTT: Tensor, teacher_BHTT: Tensor, mask_BT: Tensor, padding: Padding = "counted") -> Tensor:
    """Mean squared error of attention scores before the softmax, padded keys told by their scores or by the mask."""
    if padding == "counted":
        return F.mse_loss(_without_padded_keys(student_BHTT), _without_padded_keys(teacher_BHTT.detach()))
    visible_BT = mask_BT.to(torch.bool)
    pairs_BTT = visible_BT[:, :, None] & visible_BT[:, None, :]
    ours_BHTT, theirs_BHTT = student_BHTT.float(), teacher_BHTT.detach().float()
    error_BTT = (ours_BHTT - theirs_BHTT).square().mean(1)
    return error_BTT.masked_fill(~pairs_BTT, 0.0).sum() / pairs_BTT.sum()


def _without_padded_keys(scores_BHTT: Tensor) -> Tensor:
    scores_BHTT = scores_BHTT.float()
    return scores_BHTT.masked_fill(scores_BHTT <= PADDED_SCORE, 0.0)


def layer_map(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The layer of the teacher, from 1, that each block of a student learns from: g(m) = m N / M.

    Raises:
        TrainingInputError: the student's blocks do not divide the teacher's layers.
    """
    if student_layers < 1 or teacher_layers % student_layers:
        fitting = [count for count in range(1, teacher_layers + 1) if teacher_layers % count == 0]
        raise TrainingInputError(
            f"space.options.layers: found {student_layers}, expected a divisor of the teacher's {teacher_layers} "
            f"layers, so that its blocks learn from evenly spaced layers: {', '.join(map(str, fitting))}"
        )
    interval = teacher_layers // student_layers
    return tuple(interval * number for number in range(1, student_layers + 1))


def check_heads(student_heads: int, teacher_heads: int) -> None:
    """Make sure that attention scores can be compared head by head.

    Raises:
        TrainingInputError: student and teacher have other numbers of heads.
    """
    if student_heads != teacher_heads:
        raise TrainingInputError(
            f"space.options.heads: found {student_heads}, expected the teacher's {teacher_heads}: attention scores are "
            f"compared head by head; set it to {teacher_heads}, and a hidden_size that it divides"
        )


def check_width(student_width: int, teacher_width: int) -> None:
    """Make sure that hidden states can be compared number by number.

    Raises:
        TrainingInputError: the student's states are not as wide as the teacher's.
    """
    if student_width != teacher_width:
        raise TrainingInputError(
            f"space.options.projection: found states of width {student_width}, expected the teacher's {teacher_width}: "
            f"give the student its map to the teacher's width (projection: true)"
        )


def some_blocks(states: LayerStates, places: Sequence[int]) -> LayerStates:
    """The states of some of the blocks, by their places from 0; the embeddings are kept."""
    return LayerStates(
        states.embeddings_BTD,
        tuple(states.hidden_BTD[place] for place in places),
        tuple(states.scores_BHTT[place] for place in places),
    )
