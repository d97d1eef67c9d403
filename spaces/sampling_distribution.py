"""The contract of a distribution over architectures that is learned, and of costs whose expectation it can give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol

import torch
from torch import Tensor, nn

from spaces.supernet import ArchitectureT


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
        """Draw one architecture as gates, which the supernet runs in its place, as many random numbers as it takes.

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
    """What architectures cost, and what a distribution over them costs on the average, in closed form.

    Attributes:
        name: of what is counted, such as ``parameters``.
    """

    name: str

    def of(self, architecture: Any) -> float:
        """What one architecture costs."""

    def expected(self, distribution: Any) -> Tensor:
        """What the architectures of a distribution cost on the average, a scalar with gradients."""
