"""The contract of a search space: what can be asked of a family of architectures, without training anything."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError

if TYPE_CHECKING:
    from torch import nn

    from spaces.supernet import Supernet

ArchitectureT = TypeVar("ArchitectureT", bound=Architecture)

FlopsRule = Literal["encoder", "electra"]
"""How floating-point operations are counted. ``encoder``: matrix products and convolutions behind the embeddings, whose
look-ups cost nothing. ``electra``: besides, the token embedding as the product of one-hot rows with its table,
``2 × embedding size × vocabulary × tokens``, as ELECTRA's script counts it and NAS-BERT's paper reports it. Both count
a multiply-add as two and leave out normalisation and activation."""

SamplingLaw = Literal["architectures", "operations"]
"""How block architectures are drawn at random. ``architectures``: all of a block's architectures are equally likely.
``operations``: the hidden size, then every layer (the identity included) uniformly, so that blocks are shallower."""

EMBEDDING_LADDER = {5_000_000: 64, 10_000_000: 128, 30_000_000: 256, 60_000_000: 512}
"""NAS-BERT's embedding sizes by the parameters of the whole model (paper notes, section 3.4)."""


@dataclass(frozen=True)
class Cost:
    """What an architecture costs, by arithmetic alone.

    Attributes:
        parameters: all weights of the stand-alone model, embeddings included.
        encoder_parameters: the weights behind the embeddings (the unit of a budget).
        flops: floating-point operations of one forward pass of one sequence; the sequence length and the rule of
            counting (:data:`FlopsRule`) are arguments of :meth:`SearchSpace.cost`.
    """

    parameters: int
    encoder_parameters: int
    flops: int


@dataclass(frozen=True)
class BlockCosts:
    """What every architecture of a block costs, in the order of :meth:`BlockwiseSpace.enumerate_blocks`.

    Attributes:
        parameters: weights of the block's operations, int64, one entry an architecture.
        flops: floating-point operations of them for one sequence, int64.
    """

    parameters: NDArray[np.int64]
    flops: NDArray[np.int64]


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

    Attributes:
        name: as it is registered.
        shape: of the teacher the space was made for, whose vocabulary its costs count; ``None`` where no teacher's
            shape plays a role.
        options_class: a dataclass of what ``space.options`` may say, for pages about it; ``None`` to say nothing.
        presets: named sets of these options.
    """

    name: str
    shape: EncoderShape | None = None
    options_class: ClassVar[type[Any] | None] = None
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> Self:
        """Make the space from the key ``space.options`` of a recipe; every space that is registered defines it.

        Args:
            options: validated here, by the space itself.
            shape: of the teacher, for the space to fit; ``None``: the space's own default.

        Raises:
            SpaceError: an option is wrong, or the space does not fit the teacher; one line that names the option, what
                was found and what was expected.
        """
        raise SpaceError(f"space.name: {cls.__name__} cannot be made from a recipe: it defines no from_options")

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

    def decide(self, rng: random.Random, given: Mapping[str, str] | None = None) -> ArchitectureT:
        """Make every decision that applies, one after the other: as given where it is, else uniformly at random.

        Where later decisions hang on earlier ones (a layer's operation on the depth), this is another law than one by
        which all architectures are alike: every choice of an early decision is drawn alike, however few follow it.

        Args:
            rng: all randomness.
            given: choices by the names of their decisions; those that do not apply are passed over.
        """
        fixed = given or {}
        chosen: dict[str, str] = {}
        for decision in self.decisions():
            if decision.is_active(chosen):
                chosen[decision.name] = fixed.get(decision.name) or rng.choice(decision.choices)
        return self.from_decisions(chosen)

    @abstractmethod
    def cost(self, architecture: ArchitectureT, sequence_length: int = 128, flops_rule: FlopsRule = "encoder") -> Cost:
        """Parameters and FLOPs by arithmetic, without building a module.

        Args:
            architecture: a member of the space.
            sequence_length: tokens of the sequence whose FLOPs are counted.
            flops_rule: how they are counted, see :data:`FlopsRule`.
        """

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

    def aspects(self) -> Sequence[str]:
        """Names of what can be searched alone while the rest stays as it is, see :meth:`narrowed`; none by default."""
        return ()

    def narrowed(self, architecture: ArchitectureT, keep: Sequence[str]) -> Self:
        """The part of the space in which some aspects are those of an architecture.

        Args:
            architecture: a member of the space.
            keep: names out of :meth:`aspects`.

        Raises:
            SpaceError: there is no such aspect, or the architecture lies outside the space.
        """
        found = ", ".join(self.aspects()) or "none"
        raise SpaceError(f"space {self.name}: cannot keep {', '.join(keep)} of an architecture; its aspects: {found}")

    def behaviour(self, architecture: ArchitectureT) -> str:
        """What the architecture computes: equal for those that compute the same function of the same weights.

        Strategies ask only one architecture of each behaviour. By default it is the text, so that each has its own.
        """
        return str(architecture)

    @classmethod
    def options_of_text(cls, text: str) -> Mapping[str, Any]:
        """Options that an architecture's text settles by itself (its hidden size, say), for whoever only costs it."""
        return {}

    def counts(self) -> dict[str, Any]:
        """What makes up :meth:`cardinality`, as JSON-native values by name; nothing by default."""
        return {}

    def parameter_counts(self, architecture: ArchitectureT) -> dict[str, int]:
        """Weights by what is counted, by name, where :meth:`cost` is one of several ways; nothing by default."""
        return {}

    def aligned_states(self, architecture: ArchitectureT, teacher_layers: int) -> Sequence[tuple[int, int]] | None:
        """Which states within a stand-alone model are to be like which of the teacher's layers.

        Args:
            architecture: of the model.
            teacher_layers: how many the teacher has.

        Returns:
            Pairs of a hidden state's index in the model, from 1 on, and the teacher's layer, but for the last ones.
            ``None``: the ends of the model's blocks stand for teacher's layers at even distances.
        """
        return None

    def check_start(self, init: str) -> None:
        """Make sure, before anything is trained, that the supernet can start in the way ``init``.

        Args:
            init: as in :meth:`~spaces.supernet.StartableSupernet.start`.

        Raises:
            SpaceError: the teacher cannot give what that start takes from it.
        """

    def check_inheritance(self) -> None:
        """Make sure that a model which takes over the supernet's weights is as large as :meth:`cost` says.

        Raises:
            SpaceError: :meth:`~spaces.supernet.Supernet.extract` hands on more than the space counts.
        """

    @abstractmethod
    def build(self, architecture: ArchitectureT) -> nn.Module:
        """A stand-alone model with freshly initialised weights."""

    @abstractmethod
    def supernet(self) -> Supernet[ArchitectureT]:
        """The weight-sharing network that runs every architecture of the space."""


class BlockwiseSpace(SearchSpace[ArchitectureT]):
    """A space of independent blocks, each of which can be trained and scored alone.

    Its :meth:`supernet` is a :class:`~spaces.supernet.BlockwiseSupernet`.

    **Additivity.** A network is an embedding size and one block architecture for each of ``num_blocks`` blocks; every
    block may have any block architecture. Costs and latencies are sums over its parts, and each part depends on one
    block (:meth:`parts_of_block`), on the widths of two neighbours (:meth:`link_parts`) or on the embedding size
    (:meth:`embedding_parts`) alone::

        parts_of(a) == embedding_parts(e) + link_parts(e, w1) + parts_of_block(b1) + link_parts(w1, w2) + ...
                       + parts_of_block(bN) + link_parts(wN, None)
        cost(a)     == the sum of part_cost over parts_of(a), field by field

    with e the embedding size and wn = ``block_width(bn)``. So the best of all networks can be found block by block.

    **Order.** :meth:`enumerate_blocks` fixes one order of a block's architectures; tables with a row for each of them
    (:meth:`block_costs`, :meth:`block_part_counts`, masks of living architectures) are in that order.

    All of it is arithmetic: nothing here needs PyTorch.
    """

    num_blocks: int

    # --- the architectures of one block --------------------------------------------------------------------------

    @abstractmethod
    def sample_block(self, rng: random.Random, law: SamplingLaw = "architectures") -> Architecture:
        """Draw the architecture of one block by a law, see :data:`SamplingLaw`."""

    @abstractmethod
    def block_cardinality(self) -> int:
        """The exact number of architectures of one block."""

    @abstractmethod
    def enumerate_blocks(self) -> Iterator[Any]:
        """Every block architecture once, always in the same order: by hidden size, then depth, then operations."""

    @abstractmethod
    def block_at(self, index: int) -> Any:
        """The block architecture at a place (from 0) of :meth:`enumerate_blocks`, without walking there.

        Raises:
            IndexError: the index is negative or not below :meth:`block_cardinality`.
        """

    @abstractmethod
    def block_index(self, block: Any) -> int:
        """The place of a block architecture, the inverse of :meth:`block_at`.

        Raises:
            SpaceError: the block architecture lies outside the space.
        """

    @abstractmethod
    def parse_block(self, text: str) -> Any:
        """Read the text form of a block architecture such as ``192:S3-M``.

        Raises:
            ArchitectureSyntaxError: the text is malformed; the message points at the place.
            SpaceError: the text is well formed but lies outside this space.
        """

    @abstractmethod
    def block_width(self, block: Any) -> int:
        """The hidden size a block works at, all its neighbours need to know of it."""

    @abstractmethod
    def block_cost(self, block: Any, sequence_length: int = 128) -> Cost:
        """What one block costs by arithmetic, without the linear maps to its neighbours."""

    @abstractmethod
    def block_genes(self, block: Any) -> dict[str, Any]:
        """Flat, JSON-native columns of one block that dashboards group by."""

    def counts(self) -> dict[str, Any]:
        """Block architectures, blocks, networks of one embedding size, and the embedding sizes."""
        block = self.block_cardinality()
        return {
            "block_cardinality": block,
            "num_blocks": self.num_blocks,
            "cardinality_per_embedding_size": block**self.num_blocks,
            "embedding_sizes": list(self.embedding_choices()),
        }

    # --- whole networks ------------------------------------------------------------------------------------------

    @abstractmethod
    def embedding_choices(self) -> Sequence[int]:
        """The embedding sizes, in the order of the options."""

    @abstractmethod
    def assemble(self, embedding_size: int, blocks: Sequence[Any]) -> ArchitectureT:
        """The network of an embedding size and ``num_blocks`` block architectures.

        Raises:
            SpaceError: embedding size, number of blocks or one of the blocks is not of the space.
        """

    def embedding_ladder(self, parameters: int) -> int:
        """The embedding size that suits a network of a size, by NAS-BERT's hand-set ladder.

        Args:
            parameters: weights of the whole network, embeddings included.

        Returns:
            The size at the highest rung of :data:`EMBEDDING_LADDER` that is not above ``parameters`` (the lowest rung
            below 5M). Where the space lacks that size, its largest smaller one, or else its smallest.
        """
        rungs = [size for rung, size in EMBEDDING_LADDER.items() if rung <= parameters]
        wanted = max(rungs, default=min(EMBEDDING_LADDER.values()))
        choices = self.embedding_choices()
        return max((size for size in choices if size <= wanted), default=min(choices))

    # --- parts, which costs and latencies are sums over ----------------------------------------------------------

    @abstractmethod
    def embedding_parts(self, embedding_size: int) -> Sequence[Part]:
        """The parts in front of the first link."""

    @abstractmethod
    def link_parts(self, width_before: int, width_after: int | None) -> Sequence[Part]:
        """What stands between two neighbours, often nothing.

        Args:
            width_before: width of a block, or the embedding size in front of the first block.
            width_after: width of the next block; ``None`` behind the last block.
        """

    @abstractmethod
    def parts_of_block(self, block: Any) -> Sequence[Part]:
        """The operations of a block, in order, repeats included."""

    @abstractmethod
    def part_cost(self, part: Part, sequence_length: int = 128, flops_rule: FlopsRule = "encoder") -> Cost:
        """What one part costs; ``encoder_parameters`` is 0 for embeddings."""

    def parts_of_network(self, embedding_size: int, blocks: Sequence[Any]) -> list[Part]:
        """The parts of a network in the order of the forward pass, put together as the class describes."""
        parts = [*self.embedding_parts(embedding_size)]
        width = embedding_size
        for block in blocks:
            parts += [*self.link_parts(width, self.block_width(block)), *self.parts_of_block(block)]
            width = self.block_width(block)
        return [*parts, *self.link_parts(width, None)]

    def block_part_counts(self) -> tuple[list[Part], NDArray[np.int64]]:
        """How often each part occurs in each block architecture.

        Returns:
            The parts, and a table with a row for each block architecture (in order) and a column for each of the parts.
            Times a vector of costs or latencies of the parts it gives those of all blocks at once.
        """
        counted = [Counter(self.parts_of_block(block)) for block in self.enumerate_blocks()]
        parts = list(dict.fromkeys(part for counts in counted for part in counts))
        return parts, np.array([[counts[part] for part in parts] for counts in counted], dtype=np.int64)

    def block_costs(self, sequence_length: int = 128) -> BlockCosts:
        """:meth:`block_cost` of every block architecture, in order."""
        parts, counts = self.block_part_counts()
        costs = [self.part_cost(part, sequence_length) for part in parts]
        return BlockCosts(
            parameters=counts @ np.array([cost.parameters for cost in costs], dtype=np.int64),
            flops=counts @ np.array([cost.flops for cost in costs], dtype=np.int64),
        )
