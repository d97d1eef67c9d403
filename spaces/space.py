"""The contract of a search space: what can be asked of a family of architectures, without training anything."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

    from spaces.supernet import Supernet

ArchitectureT = TypeVar("ArchitectureT", bound=Architecture)


@dataclass(frozen=True)
class Cost:
    """What an architecture costs, by arithmetic alone.

    Attributes:
        parameters: all weights of the stand-alone model, embeddings included.
        encoder_parameters: the weights behind the embeddings (the unit of a budget).
        flops: floating-point operations of one forward pass of one sequence (a multiply-add counts as two), embedding
            look-ups not counted; the sequence length is the argument of :meth:`SearchSpace.cost`.
    """

    parameters: int
    encoder_parameters: int
    flops: int


@dataclass(frozen=True)
class Decision:
    """One named categorical choice, the unit that samplers such as Optuna's are asked.

    Attributes:
        name: unique within the space.
        choices: the values, as text; the order means nothing.
        condition: given the choices made so far (name to value), whether this decision has to be made at all; ``None``
            means always. Decisions come in an order in which conditions only look back.
    """

    name: str
    choices: tuple[str, ...]
    condition: Callable[[Mapping[str, str]], bool] | None = None

    def is_active(self, chosen: Mapping[str, str]) -> bool:
        """Whether the decision applies after the choices in ``chosen``."""
        return self.condition is None or self.condition(chosen)


@dataclass(frozen=True)
class Part:
    """A piece that stand-alone models are put together from, the unit of an additive latency table.

    Attributes:
        kind: ``operation``, ``projection`` or ``embeddings``.
        name: the operation's name in the architecture text, or the kind.
        size: width the part works at or ends with.
        input_size: width a projection starts from; ``None`` elsewhere.
    """

    kind: str
    name: str
    size: int
    input_size: int | None = None


class SearchSpace(ABC, Generic[ArchitectureT]):
    """A family of architectures that can be sampled, varied, costed and built.

    Implementations are stateless after construction, safe to share between threads, and picklable. Randomness comes
    only from the ``random.Random`` that is passed in. Other packages add spaces through the entry-point group
    ``netsuke.spaces``.
    """

    name: str

    @abstractmethod
    def sample(self, rng: random.Random) -> ArchitectureT:
        """Draw one architecture; which law it follows is documented by the space."""

    @abstractmethod
    def mutate(self, architecture: ArchitectureT, rng: random.Random) -> ArchitectureT:
        """Return a different neighbour of ``architecture`` within the space (the same one if it is the only one)."""

    @abstractmethod
    def crossover(self, first: ArchitectureT, second: ArchitectureT, rng: random.Random) -> ArchitectureT:
        """Return an architecture of the space whose genes come from both parents."""

    @abstractmethod
    def contains(self, architecture: Architecture) -> bool:
        """Whether ``architecture`` is one of this space's."""

    @abstractmethod
    def parse(self, text: str) -> ArchitectureT:
        """Read a text form.

        Raises:
            ArchitectureSyntaxError: the text is malformed; the message points at the place.
            SpaceError: the text is well formed but lies outside this space.
        """

    @abstractmethod
    def cardinality(self) -> int:
        """The exact number of architectures."""

    @abstractmethod
    def encode(self, architecture: ArchitectureT) -> NDArray[np.float64]:
        """A vector of fixed length for predictors; equal architectures have equal vectors, different ones differ."""

    @abstractmethod
    def genes(self, architecture: ArchitectureT) -> dict[str, Any]:
        """Flat, JSON-native columns that dashboards group by (hidden sizes, operation counts, ...)."""

    @abstractmethod
    def decisions(self) -> Sequence[Decision]:
        """The space as a sequence of categorical choices, conditional ones included."""

    @abstractmethod
    def from_decisions(self, chosen: Mapping[str, str]) -> ArchitectureT:
        """The architecture of a complete set of choices (the inverse direction of :meth:`to_decisions`)."""

    @abstractmethod
    def to_decisions(self, architecture: ArchitectureT) -> dict[str, str]:
        """The choices that lead to ``architecture``: ``from_decisions(to_decisions(a)) == a``."""

    @abstractmethod
    def cost(self, architecture: ArchitectureT, sequence_length: int = 128) -> Cost:
        """Parameters and FLOPs by arithmetic, without building a module."""

    @abstractmethod
    def smallest(self) -> ArchitectureT:
        """An architecture with the fewest encoder parameters: what no budget can go below."""

    def parts(self) -> Sequence[Part]:
        """Every part that an architecture of the space can have, each once; none if latency does not add up."""
        return ()

    def parts_of(self, architecture: ArchitectureT) -> Sequence[Part]:
        """The parts of one architecture, in the order of the forward pass, repeats included."""
        return ()

    def build_part(self, part: Part) -> nn.Module:
        """A part with fresh weights, called with ``(hidden, mask)`` or, for embeddings, ``(token ids, mask)``.

        Raises:
            NotImplementedError: the space names no parts.
        """
        raise NotImplementedError(f"the space {self.name} names no parts")

    def anchors(self) -> Sequence[ArchitectureT]:
        """Well-known architectures (the teacher's own form and its regular thinnings) that strategies try first."""
        return ()

    @abstractmethod
    def build(self, architecture: ArchitectureT) -> nn.Module:
        """A stand-alone model with freshly initialised weights."""

    @abstractmethod
    def supernet(self) -> Supernet[ArchitectureT]:
        """The weight-sharing network that runs every architecture of the space."""


class BlockwiseSpace(SearchSpace[ArchitectureT]):
    """A space of independent blocks, each of which can be trained and scored alone.

    Its :meth:`supernet` is a :class:`~spaces.supernet.BlockwiseSupernet`.
    """

    num_blocks: int

    @abstractmethod
    def sample_block(self, rng: random.Random) -> Architecture:
        """Draw the architecture of one block."""

    @abstractmethod
    def block_cardinality(self) -> int:
        """The exact number of architectures of one block."""

    @abstractmethod
    def block_cost(self, block: Any, sequence_length: int = 128) -> Cost:
        """What one block costs by arithmetic, without the linear maps to its neighbours."""

    @abstractmethod
    def block_genes(self, block: Any) -> dict[str, Any]:
        """Flat, JSON-native columns of one block that dashboards group by."""

    def check_start(self, init: str) -> None:
        """Make sure, before anything is trained, that the supernet can start in the way ``init``.

        Args:
            init: as in :meth:`~spaces.supernet.BlockwiseSupernet.start`.

        Raises:
            SpaceError: the teacher cannot give what that start takes from it.
        """
