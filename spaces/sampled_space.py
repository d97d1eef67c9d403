"""The contract of a space whose supernet can be trained together with a distribution over its architectures."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from spaces.space import ArchitectureT, SearchSpace

if TYPE_CHECKING:
    from spaces.sampling_distribution import ExpectedCost, SamplingDistribution

CostName = Literal["parameters", "flops"]
"""What a search may make cheaper: weights behind the embeddings, or floating-point operations of a sequence."""


class SampledSpace(SearchSpace[ArchitectureT]):
    """A space with a distribution that is learned; its supernet is a ``SampledSupernet``."""

    @abstractmethod
    def largest(self) -> ArchitectureT:
        """The architecture that a search starts at, and whose cost others are measured by."""

    @abstractmethod
    def distribution(self, certainty: float = 0.95) -> SamplingDistribution[ArchitectureT]:
        """A distribution around the largest architecture.

        Args:
            certainty: the probability, to begin with, that a gene is as it is there.
        """

    @abstractmethod
    def expected_cost(self, name: CostName, sequence_length: int) -> ExpectedCost:
        """The costs of the space in a form whose expectation is known.

        Args:
            name: which cost.
            sequence_length: tokens of a sequence, for FLOPs.
        """
