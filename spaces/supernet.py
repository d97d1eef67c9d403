"""The contract of a supernet: one set of weights that runs every architecture of a space.

Shape legend: B batch, T tokens, D hidden size of the teacher, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn

from spaces.architecture import Architecture

ArchitectureT = TypeVar("ArchitectureT", bound=Architecture)


class Supernet(nn.Module, ABC, Generic[ArchitectureT]):
    """A network whose paths are the architectures of a space and share weights.

    A forward pass changes nothing, so one supernet can serve several threads under ``torch.inference_mode``.
    """

    @abstractmethod
    def forward(self, architecture: ArchitectureT, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Run one architecture from token ids to its last hidden state.

        Args:
            architecture: a member of the supernet's space.
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens, 0 for padding; any integer or bool dtype.

        Returns:
            The hidden state in the teacher's width, ``hidden_BTD``.
        """

    @abstractmethod
    def extract(self, architecture: ArchitectureT) -> nn.Module:
        """The stand-alone model of ``architecture`` with copies of the shared weights.

        Its output equals :meth:`forward`'s to 1e-5 in float32.
        """
