"""Masking of inputs and what is to be predicted of them, as BERT's pre-training does.

Shape legend: B batch, T tokens, N masked positions, V vocabulary.
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

    def mask(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, seed: int) -> MaskedBatch:
        """Hide tokens, with randomness from a seed alone, and remember what they were.

        Args:
            input_ids_BT: int64, on the CPU.
            attention_mask_BT: 1 for valid tokens.
            seed: any number; equal seeds hide the same positions.
        """
        generator = torch.Generator().manual_seed(seed % 2**63)
        hidden_BT, chosen_BT = self.apply(input_ids_BT, attention_mask_BT, generator)
        return MaskedBatch(hidden_BT, attention_mask_BT, chosen_BT, input_ids_BT)


@dataclass(frozen=True)
class MaskedBatch:
    """A batch with hidden tokens.

    Attributes:
        input_ids_BT: what the model reads.
        attention_mask_BT: 1 for valid tokens.
        chosen_BT: bool, the positions whose token is to be predicted.
        labels_BT: the tokens before they were hidden.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    chosen_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The same on a device."""
        return MaskedBatch(*(getattr(self, field).to(device) for field in self.__dataclass_fields__))

    def positions(self) -> Tensor:
        """The chosen positions, bool ``[B, T]``.

        The very first where chance has chosen none, so that every step has a gradient.
        """
        if bool(self.chosen_BT.any()):
            return self.chosen_BT
        first_BT = torch.zeros_like(self.chosen_BT)
        first_BT[0, 0] = True
        return first_BT

    def labels(self) -> Tensor:
        """The tokens that are to be predicted at :meth:`positions`, ``[N]``."""
        return self.labels_BT[self.positions()]


def accuracy_of(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Share of the positions whose most likely token is the right one."""
    return (logits_NV.argmax(-1) == labels_N).float().mean()
