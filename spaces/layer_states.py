"""What a Transformer says on its way, layer by layer, and supernets that can tell: what layer-wise distillation needs.

Shape legend: B batch, T tokens, H attention heads, D hidden size of the teacher.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from spaces.supernet import ArchitectureT, PairSupernet, StartableSupernet


@dataclass(frozen=True)
class LayerStates:
    """States of one forward pass, of a teacher or of a student whose states are mapped to the teacher's width.

    Attributes:
        embeddings_BTD: output of the embeddings.
        hidden_BTD: after each block, from the first to the last.
        scores_BHTT: of each block's attention, before the softmax: ``QK^T/sqrt(d)``, with -10000 added in the columns
            of padded keys; rows are queries.
    """

    embeddings_BTD: Tensor
    hidden_BTD: tuple[Tensor, ...]
    scores_BHTT: tuple[Tensor, ...]


class LayerwiseSupernet(PairSupernet[ArchitectureT], StartableSupernet[ArchitectureT]):
    """A supernet whose layers can be compared with the teacher's one by one."""

    @abstractmethod
    def layer_states(
        self,
        architecture: ArchitectureT,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> LayerStates:
        """Run one architecture and return all that a layer-wise distillation compares.

        Args:
            architecture: a member of the supernet's space.
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens, 0 for padding; any integer or bool dtype.
            token_type_ids_BT: segments, where texts come in pairs; 0 by default.

        Returns:
            The states in the teacher's width, by the one projection that all of them share.
        """

    @abstractmethod
    def largest(self) -> ArchitectureT:
        """The plain architecture whose training touches all weights."""
