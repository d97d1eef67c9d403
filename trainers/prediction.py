"""How well masked tokens of held-out text are predicted, the same tokens for every model.

Shape legend: B batch, T tokens, N masked positions, D width of a model's states, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from trainers.masking import MaskedBatch, Masking

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps input ids, attention mask and a bool mask of positions to the logits at those positions, ``logits_NV``."""


@dataclass(frozen=True)
class Prediction:
    """How well masked tokens were predicted, over all of them, not averaged per batch.

    Attributes:
        loss: mean cross entropy in nats; not a number where chance has hidden nothing of a tiny text, like accuracy.
        accuracy: share of the tokens that were the most likely ones.
        positions: how many were predicted.
    """

    loss: float
    accuracy: float
    positions: int

    @property
    def perplexity(self) -> float:
        """The exponential of the loss: among how many equally likely tokens the model is undecided."""
        return math.exp(min(self.loss, 700.0))  # beyond it floats overflow


def mask_batches(batches: Sequence[tuple[Tensor, Tensor]], masking: Masking, seed: int) -> list[MaskedBatch]:
    """Hide tokens of batches of (input ids, attention mask), by the seed alone."""
    return [masking.mask(*batch, seed=hash((seed, number))) for number, batch in enumerate(batches)]


def summed_loss(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Cross entropy of hidden tokens in nats, summed over them; a scalar on their device."""
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


@torch.inference_mode()
def measure_prediction(predict: Predict, batches: Sequence[MaskedBatch]) -> Prediction:
    """Have the hidden tokens of all batches predicted."""
    loss = 0.0
    right = positions = 0
    for batch in batches:
        if not bool(batch.chosen_BT.any()):
            continue
        logits_NV = predict(batch.input_ids_BT, batch.attention_mask_BT, batch.chosen_BT).float()
        labels_N = batch.labels()
        loss += summed_loss(logits_NV, labels_N).item()
        right += int((logits_NV.argmax(-1) == labels_N).sum())
        positions += len(labels_N)
    if not positions:
        return Prediction(math.nan, math.nan, 0)
    return Prediction(loss / positions, right / positions, positions)
