"""The contract of a supernet: one set of weights that runs every architecture of a space.

Shape legend: B batch, T tokens, D hidden size of the teacher, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

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


class BlockwiseSupernet(Supernet[ArchitectureT]):
    """A supernet of independent blocks, each from the teacher's hidden state at one layer to that at a later layer.

    Its space has ``sample_block(rng)``, which draws the architecture of one block.
    """

    num_blocks: int

    @abstractmethod
    def embed(self, embedding_size: int, input_ids_BT: Tensor) -> Tensor:
        """The student's embeddings of one size, mapped to the teacher's width (``hidden_BTD``)."""

    @abstractmethod
    def forward_block(self, index: int, block: Any, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Run one path of block ``index`` (from 0); ``mask_BT`` is bool. Returns ``hidden_BTD``."""

    @abstractmethod
    def block_module(self, index: int) -> nn.Module:
        """The module that holds the weights of block ``index``; blocks share none."""

    @abstractmethod
    def embedding_modules(self) -> dict[int, nn.Module]:
        """For every embedding size that has weights of its own to learn, the module that holds them."""

    @abstractmethod
    def start(self, teacher: Any, input_ids_BT: Tensor, attention_mask_BT: Tensor, init: str) -> None:
        """Set the weights before training.

        Args:
            teacher: the teacher's encoder, a Hugging Face model.
            input_ids_BT: calibration text, int64.
            attention_mask_BT: 1 for valid tokens.
            init: ``teacher`` (extracted from the teacher's weights) or ``paper`` (random, the teacher's embeddings).
        """
