"""The contract of a supernet: one set of weights that runs every architecture of a space.

Shape legend: B batch, T tokens, D hidden size of the teacher, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.extraction import TeacherImportance

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


class PairSupernet(Supernet[ArchitectureT]):
    """A supernet that tells the two texts of a pair apart, as tasks ask for."""

    @abstractmethod
    def forward(
        self,
        architecture: ArchitectureT,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Run one architecture, see :class:`Supernet`; pairs of texts come with their segments.

        Args:
            architecture: a member of the supernet's space.
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens, 0 for padding; any integer or bool dtype.
            token_type_ids_BT: segments; 0 by default.

        Returns:
            The hidden state in the teacher's width, ``hidden_BTD``.
        """


class StartableSupernet(Supernet[ArchitectureT]):
    """A supernet that can start at a teacher's weights."""

    @abstractmethod
    def start(
        self,
        teacher: Any,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        init: str,
        importance: TeacherImportance | None = None,
    ) -> None:
        """Set the weights before training.

        Args:
            teacher: the teacher's encoder, a Hugging Face model.
            input_ids_BT: calibration text, int64.
            attention_mask_BT: 1 for valid tokens.
            init: ``teacher`` (extracted from the teacher's weights) or ``paper`` (random, as the space's paper has it).
            importance: which heads and neurons an extraction keeps or prefers; ``None``: by the variance they add.
        """


class BlockwiseSupernet(StartableSupernet[ArchitectureT]):
    """A supernet of independent blocks, each from the teacher's hidden state at one layer to that at a later layer.

    A path through a block is a sequence of steps: the entry, the layers, and leaving it. Paths that begin with the
    same steps go through the same states, so evaluation may compute these once (see
    :mod:`trainers.prefix_evaluation`).
    """

    num_blocks: int

    @abstractmethod
    def split(self, architecture: ArchitectureT) -> tuple[int, tuple[Any, ...]]:
        """The embedding size and the block architectures of a network, from the first block to the last."""

    @abstractmethod
    def embed(self, embedding_size: int, input_ids_BT: Tensor) -> Tensor:
        """The student's embeddings of one size, mapped to the teacher's width (``hidden_BTD``)."""

    @abstractmethod
    def block_steps(self, block: Any) -> tuple[Hashable, ...]:
        """The steps of a block architecture: the entry's key, then one key a layer.

        Two architectures whose steps begin alike have the same states after these steps, whatever follows.
        """

    @abstractmethod
    def run_step(self, index: int, position: int, key: Hashable, state: Tensor, mask_BT: Tensor) -> Tensor:
        """Run one step of block ``index`` (from 0).

        Args:
            index: of the block.
            position: of the step within :meth:`block_steps`, 0 for the entry.
            key: of the step.
            state: ``hidden_BTD`` at position 0, what the step before returned elsewhere; it is left as it is.
            mask_BT: bool, True for valid tokens.

        Returns:
            The state after the step, for the next one or for :meth:`leave`.
        """

    @abstractmethod
    def leave(self, index: int, entry: Hashable, state: Tensor) -> Tensor:
        """Map the state after a path's last step to the teacher's width.

        Args:
            index: of the block.
            entry: the key of the path's first step.
            state: what the last step returned; it is left as it is.

        Returns:
            ``hidden_BTD``; may be ``state`` itself where nothing is to be done.
        """

    def leave_map(self, index: int, entry: Hashable) -> tuple[Tensor, Tensor] | None:
        """Weight ``[D, H]`` and bias ``[D]`` of :meth:`leave`, where it is an affine map; else ``None``."""
        return None

    def forward_block(self, index: int, block: Any, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Run one path of block ``index`` (from 0), step by step; ``mask_BT`` is bool. Returns ``hidden_BTD``."""
        steps = self.block_steps(block)
        state = hidden_BTD
        for position, key in enumerate(steps):
            state = self.run_step(index, position, key, state, mask_BT)
        return self.leave(index, steps[0], state)

    def forward(self, architecture: ArchitectureT, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Run a whole architecture, each block on the output of the one before. Returns ``hidden_BTD``."""
        mask_BT = attention_mask_BT.to(torch.bool)
        embedding_size, blocks = self.split(architecture)
        hidden_BTD = self.embed(embedding_size, input_ids_BT)
        for index, block in enumerate(blocks):
            hidden_BTD = self.forward_block(index, block, hidden_BTD, mask_BT)
        return hidden_BTD

    @abstractmethod
    def block_module(self, index: int) -> nn.Module:
        """The module that holds the weights of block ``index``; blocks share none."""

    @abstractmethod
    def embedding_modules(self) -> dict[int, nn.Module]:
        """For every embedding size that has weights of its own to learn, the module that holds them."""
