"""The contract of a space whose supernet can be trained together with a distribution over its architectures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spaces.space import ArchitectureT, SearchSpace

if TYPE_CHECKING:
    from spaces.sampling_distribution import ExpectedCost, SamplingDistribution

CostName = Literal["parameters", "flops"]
"""What a search may make cheaper: weights behind the embeddings, or floating-point operations of a sequence."""


@dataclass(frozen=True)
class LatencyPrices:
    """Fitted prices of the terms that a space's latency is a sum over; picklable.

    Attributes:
        prices: milliseconds of one of each term, by name.
        base_ms: what every network costs besides.
    """

    prices: Mapping[str, float]
    base_ms: float


@dataclass(frozen=True)
class MarginalLatency:
    """What one more of something costs within a network, in milliseconds.

    Attributes:
        name: of what is added, in words.
        horizontal_ms: beside others of its kind; below zero for what saves time.
        vertical_ms: behind them; ``None`` where it cannot stand there.
    """

    name: str
    horizontal_ms: float
    vertical_ms: float | None


class SampledSpace(SearchSpace[ArchitectureT]):
    """A space with a distribution that is learned; its supernet is a ``SampledSupernet``.

    **Latency.** A space that names no parts may say what the latency of its networks is a sum over
    (:meth:`latency_terms`); prices of that are then fitted to whole networks that were timed. No price is below zero,
    and no term follows from the others.
    """

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

    def latency_terms(self) -> tuple[str, ...]:
        """What latency is a sum over, by name; nothing where it does not add up so."""
        return ()

    def latency_meanings(self) -> Mapping[str, str]:
        """Each of the terms in words: what one of it is."""
        return {}

    def latency_counts(self, architecture: ArchitectureT) -> Sequence[float]:
        """How much an architecture has of each of the terms, in their order."""
        return ()

    def latency_cost(self, prices: Mapping[str, float], base: float) -> ExpectedCost:
        """What prices of the terms say of networks, in a form whose expectation is known.

        Args:
            prices: milliseconds of one of each term, by name. Those of a space that this one is narrowed from will do.
            base: milliseconds that every network costs besides.

        Raises:
            NotImplementedError: the space names no terms.
        """
        raise NotImplementedError(f"the space {self.name} names no terms of latency")

    def marginal_latencies(self, prices: Mapping[str, float]) -> Sequence[MarginalLatency]:
        """The same prices as a person reads them: what one more of everything costs."""
        return ()

    def latency_sizes(self) -> Mapping[str, int | str]:
        """The sizes that prices hang on, by name: where another space has others, its prices are others."""
        return {}
