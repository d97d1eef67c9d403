"""Masking of inputs for teachers with a masked-LM head, as BERT's pre-training does.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden from the model.

    Attributes:
        probability: share of the ordinary tokens that are chosen. Of these 80 % become the mask token, 10 % a random
            token, 10 % stay.
        mask_token_id: token id of the mask.
        special_ids: tokens that are never chosen.
        vocab_size: random tokens are drawn below it.
    """

    probability: float
    mask_token_id: int
    special_ids: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, probability: float) -> Masking:
        """Read the special tokens from a tokenizer that has a mask token."""
        return cls(probability, int(tokenizer.mask_token_id or 0), tuple(tokenizer.all_special_ids), len(tokenizer))

    def apply(
        self, input_ids_BT: Tensor, attention_mask_BT: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Hide tokens.

        Args:
            input_ids_BT: int64, on the CPU.
            attention_mask_BT: 1 for valid tokens.
            generator: source of randomness.

        Returns:
            The new ids, and a bool mask of the chosen positions.
        """
        special_BT = torch.isin(input_ids_BT, torch.tensor(self.special_ids))
        draw_BT = torch.rand(input_ids_BT.shape, generator=generator)
        chosen_BT = (draw_BT < self.probability) & ~special_BT & attention_mask_BT.to(torch.bool)
        kind_BT = torch.rand(input_ids_BT.shape, generator=generator)
        random_BT = torch.randint(self.vocab_size, input_ids_BT.shape, generator=generator)
        hidden_BT = torch.where(chosen_BT & (kind_BT < 0.8), self.mask_token_id, input_ids_BT)
        return torch.where(chosen_BT & (kind_BT >= 0.9), random_BT, hidden_BT), chosen_BT
