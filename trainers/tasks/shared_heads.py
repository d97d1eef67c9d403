"""Heads of several tasks on one encoder: one pooler for all of them, and a classifier for each.

Shape legend: B batch, T tokens, D width of the encoder's states, C classes (or 1 for a number).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from spaces.model_parts.task_heads import Pooling, pool

Pooler = Literal["shared", "none"]
"""What is between a sequence's pooled state and the classifiers: BERT's pooler (a linear map and tanh), one for all
tasks, or nothing."""

BERT_DROPOUT = 0.1
"""Before the classifiers, where settings leave dropout to the model."""

_CLASSIFIER, _WEIGHT = "classifiers.", ".weight"


class SharedHeads(nn.Module):
    """What tasks that share an encoder predict from its last state.

    Linear maps start as N(0, 0.02) without bias, from the global generator.

    Args:
        width: D.
        outputs: of each task, the classes, or 1 for a number.
        pooling: what a sequence's class is read from: the first token's state, or the mean of all.
        pooler: what comes before the classifiers.
        dropout: before each classifier.
    """

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        pooling: Pooling = "first",
        pooler: Pooler = "shared",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.pooler = nn.Linear(width, width) if pooler == "shared" else None
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleDict({task: nn.Linear(width, count) for task, count in outputs.items()})
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    @classmethod
    def with_weights(cls, weights: Mapping[str, Tensor], pooling: Pooling) -> SharedHeads:
        """Heads around weights that are there already, in evaluation mode; which tasks there are is what they say.

        Args:
            weights: by name; they become the heads' own without being copied, and nothing writes into them.
            pooling: as the heads were trained.
        """
        outputs = {
            name.removeprefix(_CLASSIFIER).removesuffix(_WEIGHT): len(weight)
            for name, weight in weights.items()
            if name.startswith(_CLASSIFIER) and name.endswith(_WEIGHT)
        }
        width = next(weight.shape[1] for name, weight in weights.items() if name.endswith(_WEIGHT))
        with torch.device("meta"):
            heads = cls(width, outputs, pooling, "shared" if "pooler.weight" in weights else "none")
        heads.load_state_dict(weights, assign=True)
        return heads.eval().requires_grad_(False)

    def forward(self, task: str, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Predict for one task.

        Args:
            task: its name.
            hidden_BTD: last state of the encoder.
            mask_BT: 1 for valid tokens.

        Returns:
            ``logits_BC``, float32.
        """
        pooled_BD = pool(hidden_BTD, mask_BT, self.pooling)
        if self.pooler is not None:
            pooled_BD = torch.tanh(self.pooler(pooled_BD))
        logits_BC: Tensor = self.classifiers[task](self.dropout(pooled_BD))
        return logits_BC.float()
