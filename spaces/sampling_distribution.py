"""The contracts of a search that learns what to draw: distribution, expected cost, and the supernet and space of both.

Shape legend: B batch, T tokens, D hidden size of the teacher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol

import torch
from torch import Tensor, nn

from spaces.supernet import ArchitectureT, PairSupernet


class SamplingDistribution(nn.Module, ABC, Generic[ArchitectureT]):
    """A distribution over the architectures of a space; what is learned of it are its parameters.

    Numbers are drawn on the processor by the generator that is given, wherever the parameters are, so that workers with
    different devices draw alike.
    """

    @abstractmethod
    def draw(self, generator: torch.Generator) -> ArchitectureT:
        """Draw one architecture."""

    @abstractmethod
    def draw_gates(self, generator: torch.Generator, temperature: float) -> Any:
        """Draw the architecture that :meth:`draw` would, as gates, which the supernet runs in its place.

        Their values are zeros and ones, and their gradients reach the parameters straight through the threshold, as
        those of a binary concrete variable do.

        Args:
            generator: the source of the draw.
            temperature: of the binary concrete; the lower, the more of the gradient goes to bits that are undecided.
        """

    @abstractmethod
    def log_probability(self, architectures: Sequence[ArchitectureT]) -> Tensor:
        """The logarithm of each one's probability, ``[architectures]``, with gradients."""

    @abstractmethod
    def most_likely(self) -> ArchitectureT:
        """The architecture that a search ends with."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """How much is undecided, in nats."""


class ExpectedCost(Protocol):
    """What architectures cost, and what a distribution over them costs on the average, in closed form."""

    @property
    def name(self) -> str:
        """Of what is counted, such as ``parameters``."""

    def of(self, architecture: Any) -> float:
        """What one architecture costs."""

    def expected(self, distribution: Any) -> Tensor:
        """What the architectures of a distribution cost on the average, a scalar with gradients."""


class SampledSupernet(PairSupernet[ArchitectureT]):
    """A supernet that is trained together with a distribution over its paths.

    It runs what :meth:`SamplingDistribution.draw_gates` gave as well as architectures.
    """

    @abstractmethod
    def forward(
        self,
        architecture: Any,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """The last of :meth:`hidden_states`."""

    @abstractmethod
    def hidden_states(
        self,
        architecture: Any,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The embeddings' output and the state after each of the teacher's layers, ``hidden_BTD`` each.

        Args:
            architecture: a member of the space, or what :meth:`SamplingDistribution.draw_gates` gave.
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens, 0 for padding; any integer or bool dtype.
            token_type_ids_BT: segments, where texts come in pairs; 0 by default.
        """

    @abstractmethod
    def largest(self) -> ArchitectureT:
        """The architecture that touches all weights, whose cost others are measured by."""

    @abstractmethod
    def start(self, teacher: Any) -> None:
        """Take over the weights of a Hugging Face encoder: a teacher, or a student that some spaces can go on from."""
