"""Validation text with the teacher's answers: what every evaluation of a supernet measures itself against.

Shape legend: B batch, T tokens, D hidden size of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.corpus import PackedCorpus
from trainers.losses import masked_variance
from trainers.teacher import Teacher

SEARCH_SHARE = (0, 2)
"""Rows of the held-out text that candidates are scored on."""

JUDGING_SHARE = (1, 2)
"""Rows of the held-out text that finished models are judged on; no search has seen them."""


@dataclass(frozen=True)
class ValidationBatch:
    """One batch with the teacher's answers.

    Attributes:
        input_ids_BT: int64 token ids.
        mask_BT: 1 for valid tokens.
        states_BTD: the teacher's hidden states at the block borders, float32.
        variances: of each of these states.
    """

    input_ids_BT: Tensor
    mask_BT: Tensor
    states_BTD: list[Tensor]
    variances: list[float]

    @property
    def tokens(self) -> float:
        """Valid tokens, the batch's weight in a mean over batches."""
        return float(self.mask_BT.sum())

    def to(self, device: torch.device | str) -> ValidationBatch:
        """The same on a device."""
        states = [state.to(device) for state in self.states_BTD]
        return ValidationBatch(self.input_ids_BT.to(device), self.mask_BT.to(device), states, self.variances)


def validation_batches(
    teacher: Teacher,
    corpus: PackedCorpus,
    num_blocks: int,
    batches: int,
    batch_size: int,
    share: tuple[int, int] = SEARCH_SHARE,
    device: torch.device | str = "cpu",
) -> list[ValidationBatch]:
    """Run the teacher over validation text.

    Args:
        teacher: on ``device``.
        corpus: packed held-out text.
        num_blocks: blocks whose borders' states are kept.
        batches: how many at most; they are spread evenly over the corpus, and are the same every time.
        batch_size: sequences of each.
        share: the rows that may be used, as in :meth:`~trainers.corpus.PackedCorpus.even_batches`.
        device: where tokens and states are put.
    """
    found = []
    for rows in corpus.even_batches(batches, batch_size, share):
        input_ids_BT, mask_BT = (tensor.to(device) for tensor in rows)
        states = teacher.states(input_ids_BT, mask_BT, teacher.block_layers(num_blocks))
        variances = [masked_variance(state, mask_BT).item() for state in states]
        found.append(ValidationBatch(input_ids_BT, mask_BT, states, variances))
    return found


def variance_at(batches: list[ValidationBatch], border: int) -> float:
    """Variance of the teacher's states at a block border (block n ends at border n + 1), over all valid tokens.

    The mean of the batches' variances, weighted by their valid tokens.
    """
    tokens = [batch.tokens for batch in batches]
    weighted = sum(batch.variances[border] * count for batch, count in zip(batches, tokens, strict=True))
    return weighted / sum(tokens)
