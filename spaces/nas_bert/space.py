"""NAS-BERT's search space: sampling, variation, counting and building of block-wise architectures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.nas_bert import block_order, decisions
from spaces.nas_bert import parts as part_values
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.cost import block_cost_of, cost_of
from spaces.nas_bert.operation_names import ATTENTION, is_feed_forward
from spaces.nas_bert.options import PRESETS, NasBertOptions
from spaces.space import BlockwiseSpace, Cost, Decision, FlopsRule, Part, SamplingLaw

if TYPE_CHECKING:
    from torch import nn

    from spaces.nas_bert.modeling import NasBertModel
    from spaces.nas_bert.supernet import NasBertSupernet


class NasBertSpace(BlockwiseSpace[NasBertArchitecture]):
    """The space of Xu et al. (KDD 2021), section 3.2, with sizes and operations from its options.

    Args:
        options: see :class:`~spaces.nas_bert.options.NasBertOptions`; the paper's by default.
    """

    name = "nas_bert"
    options_class = NasBertOptions
    presets = PRESETS

    def __init__(self, options: NasBertOptions | None = None) -> None:
        self.options = options or NasBertOptions()
        self.num_blocks = self.options.num_blocks
        self.shape = self.options.shape

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> NasBertSpace:
        """Make the space from a recipe's options, for a teacher of ``shape`` (the preset's without one).

        Raises:
            SpaceError: an option is wrong, or the space does not fit the teacher.
        """
        space = cls(NasBertOptions.from_mapping(options, shape))
        if shape is not None:
            space.options.check_teacher()
        return space

    # --- drawing and varying -------------------------------------------------------------------------------------

    def sample_block(self, rng: random.Random, law: SamplingLaw = "architectures") -> BlockArchitecture:
        """Draw one block by a law; see :data:`spaces.space.SamplingLaw`."""
        return block_order.sample_block(rng, self.options, law)

    def sample(self, rng: random.Random) -> NasBertArchitecture:
        """Draw uniformly over all architectures."""
        embedding_size = rng.choice(self.options.embedding_sizes)
        return NasBertArchitecture(
            embedding_size, tuple(self.sample_block(rng) for _ in range(self.options.num_blocks))
        )

    def mutate(self, architecture: NasBertArchitecture, rng: random.Random) -> NasBertArchitecture:
        """Change one gene: an operation, the depth or hidden size of a block, or the embedding size."""
        neighbours = [
            *((size, None) for size in self.options.embedding_sizes if size != architecture.embedding_size),
            *((None, index) for index in range(self.options.num_blocks)),
        ]
        rng.shuffle(neighbours)
        for embedding_size, block_index in neighbours:
            if block_index is None:
                assert embedding_size is not None
                return NasBertArchitecture(embedding_size, architecture.blocks)
            changed = self._mutate_block(architecture.blocks[block_index], rng)
            if changed is not None:
                blocks = [*architecture.blocks]
                blocks[block_index] = changed
                return NasBertArchitecture(architecture.embedding_size, tuple(blocks))
        return architecture

    def _mutate_block(self, block: BlockArchitecture, rng: random.Random) -> BlockArchitecture | None:
        options, operations = self.options, block.operations
        offered = options.operations_at(block.hidden_size)
        moves = ["replace", "replace", "insert", "delete", "resize"]
        rng.shuffle(moves)
        for move in moves:
            position = rng.randrange(len(operations))
            if move == "resize":
                resized = [BlockArchitecture(size, operations) for size in options.hidden_sizes]
                resized = [other for other in resized if other != block and self._block_misfit(other) is None]
                if resized:
                    return rng.choice(resized)
            if move == "replace" and len(offered) > 1:
                others = [operation for operation in offered if operation != operations[position]]
                changed = (*operations[:position], rng.choice(others), *operations[position + 1 :])
                return BlockArchitecture(block.hidden_size, changed)
            if move == "insert" and len(operations) < options.layers_per_block:
                position = rng.randrange(len(operations) + 1)
                inserted = (*operations[:position], rng.choice(offered), *operations[position:])
                return BlockArchitecture(block.hidden_size, inserted)
            if move == "delete" and len(operations) > 1:
                return BlockArchitecture(block.hidden_size, operations[:position] + operations[position + 1 :])
        return None

    def crossover(
        self, first: NasBertArchitecture, second: NasBertArchitecture, rng: random.Random
    ) -> NasBertArchitecture:
        """Take the embedding size and every block from either parent."""
        pairs = zip(first.blocks, second.blocks, strict=True)
        return NasBertArchitecture(
            rng.choice((first.embedding_size, second.embedding_size)), tuple(rng.choice(pair) for pair in pairs)
        )

    # --- membership, text and counting ---------------------------------------------------------------------------

    def contains(self, architecture: Architecture) -> bool:
        """Whether sizes, operations and depths are all among the options."""
        return isinstance(architecture, NasBertArchitecture) and self._misfit(architecture) is None

    def _misfit(self, architecture: NasBertArchitecture) -> str | None:
        options = self.options
        if architecture.embedding_size not in options.embedding_sizes:
            return f"embedding size {architecture.embedding_size} is not one of {_listed(options.embedding_sizes)}"
        if len(architecture.blocks) != options.num_blocks:
            found = "1 block" if len(architecture.blocks) == 1 else f"{len(architecture.blocks)} blocks"
            return f"it has {found}, expected {options.num_blocks}"
        for number, block in enumerate(architecture.blocks, start=1):
            misfit = self._block_misfit(block)
            if misfit is not None:
                return f"block {number}: {misfit}"
        return None

    def _block_misfit(self, block: BlockArchitecture) -> str | None:
        options = self.options
        if block.hidden_size not in options.hidden_sizes:
            return f"hidden size {block.hidden_size} is not one of {_listed(options.hidden_sizes)}"
        if not 1 <= len(block.operations) <= options.layers_per_block:
            return f"{len(block.operations)} layers, expected 1 to {options.layers_per_block}"
        offered = options.operations_at(block.hidden_size)
        for operation in block.operations:
            if operation in options.operations and operation not in offered:
                return f"operation {operation} is not narrower than attention at hidden size {block.hidden_size}"
            if operation not in offered:
                return f"operation {operation} is not one of {_listed(offered)}"
        return None

    def parse(self, text: str) -> NasBertArchitecture:
        """Read a text form of this space; see :class:`~spaces.space.SearchSpace`."""
        architecture = NasBertArchitecture.parse(text)
        misfit = self._misfit(architecture)
        if misfit is not None:
            raise SpaceError(f"architecture '{text}' is not in the space: {misfit}")
        return architecture

    def parse_block(self, text: str) -> BlockArchitecture:
        """Read the text form of one of this space's block architectures."""
        block = BlockArchitecture.parse(text)
        misfit = self._block_misfit(block)
        if misfit is not None:
            raise SpaceError(f"block '{text}' is not in the space: {misfit}")
        return block

    def block_cardinality(self) -> int:
        """Architectures of one block: for every hidden size, sequences of 1 to ``layers_per_block`` operations."""
        return block_order.cardinality(self.options)

    def cardinality(self) -> int:
        """Embedding sizes times the block architectures of every block."""
        cardinality: int = len(self.options.embedding_sizes) * self.block_cardinality() ** self.options.num_blocks
        return cardinality

    def enumerate_blocks(self) -> Iterator[BlockArchitecture]:
        """Yield every block architecture once, by hidden size, then depth, then operations."""
        return block_order.enumerate_blocks(self.options)

    def block_at(self, index: int) -> BlockArchitecture:
        """The block architecture at a place of the enumeration."""
        return block_order.block_at(index, self.options)

    def block_index(self, block: BlockArchitecture) -> int:
        """The place of a block architecture in the enumeration."""
        misfit = self._block_misfit(block)
        if misfit is not None:
            raise SpaceError(f"block '{block}' is not in the space: {misfit}")
        return block_order.block_index(block, self.options)

    def block_width(self, block: BlockArchitecture) -> int:
        """The hidden size of a block."""
        return block.hidden_size

    def embedding_choices(self) -> Sequence[int]:
        """The embedding sizes of the options."""
        return self.options.embedding_sizes

    def assemble(self, embedding_size: int, blocks: Sequence[BlockArchitecture]) -> NasBertArchitecture:
        """The network of an embedding size and blocks."""
        architecture = NasBertArchitecture(embedding_size, tuple(blocks))
        misfit = self._misfit(architecture)
        if misfit is not None:
            raise SpaceError(f"architecture '{architecture}' is not in the space: {misfit}")
        return architecture

    # --- views for samplers, predictors and dashboards -----------------------------------------------------------

    def encode(self, architecture: NasBertArchitecture) -> NDArray[np.float64]:
        """One-hot vector: embedding size, then per block its hidden size and, per layer, operation or absence."""
        options = self.options
        parts = [[size == architecture.embedding_size for size in options.embedding_sizes]]
        for block in architecture.blocks:
            parts.append([size == block.hidden_size for size in options.hidden_sizes])
            absent = (None,) * (options.layers_per_block - len(block.operations))
            for layer in (*block.operations, *absent):
                parts.append([layer == operation for operation in (None, *options.operations)])
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])

    def genes(self, architecture: NasBertArchitecture) -> dict[str, Any]:
        """Embedding size, number of layers, count of every operation, and each block's size and operations."""
        layers = [operation for _, _, operation in architecture.layers()]
        genes: dict[str, Any] = {"embedding_size": architecture.embedding_size, "layers": len(layers)}
        genes.update({f"count_{operation}": layers.count(operation) for operation in self.options.operations})
        for number, block in enumerate(architecture.blocks, start=1):
            genes[f"block_{number}_hidden_size"] = block.hidden_size
            genes[f"block_{number}_operations"] = "-".join(block.operations)
        return genes

    def decisions(self) -> Sequence[Decision]:
        """Embedding size, then per block its hidden size, depth and the operation of every present layer."""
        return decisions.decisions(self.options)

    def from_decisions(self, chosen: Mapping[str, str]) -> NasBertArchitecture:
        """The architecture of a complete set of choices."""
        return decisions.from_decisions(chosen, self.options)

    def to_decisions(self, architecture: NasBertArchitecture) -> dict[str, str]:
        """The choices that lead to ``architecture``."""
        return decisions.to_decisions(architecture, self.options)

    # --- cost and modules ----------------------------------------------------------------------------------------

    def cost(
        self, architecture: NasBertArchitecture, sequence_length: int = 128, flops_rule: FlopsRule = "encoder"
    ) -> Cost:
        """Parameters and FLOPs by arithmetic; see :mod:`spaces.nas_bert.cost`."""
        return cost_of(architecture, self.options, sequence_length, flops_rule)

    def smallest(self) -> NasBertArchitecture:
        """One cheapest operation a block; the hidden sizes that give the fewest weights, linear maps included.

        Costs add up along the network, so the best way to each width is an extension of the best way to some width of
        the block before.
        """
        options = self.options

        def weights(parts: Sequence[Part]) -> int:
            return sum(self.part_cost(part).encoder_parameters for part in parts)

        cheapest = {
            size: min(
                (BlockArchitecture(size, (operation,)) for operation in options.operations_at(size)),
                key=lambda block: weights(self.parts_of_block(block)),
            )
            for size in options.hidden_sizes
        }
        ways = [(0, NasBertArchitecture(size, ())) for size in options.embedding_sizes]
        for _ in range(options.num_blocks):
            ways = [
                min(
                    ((so_far + weights(self._step(way, block)), _extended(way, block)) for so_far, way in ways),
                    key=itemgetter(0),
                )
                for block in cheapest.values()
            ]
        finished = [(so_far + weights(self._step(way, None)), way) for so_far, way in ways]
        return min(finished, key=itemgetter(0))[1]

    def _step(self, way: NasBertArchitecture, block: BlockArchitecture | None) -> list[Part]:
        """The parts that a block (or the end) adds to the beginning of a network."""
        width = way.blocks[-1].hidden_size if way.blocks else way.embedding_size
        if block is None:
            return self.link_parts(width, None)
        return [*self.link_parts(width, block.hidden_size), *self.parts_of_block(block)]

    def block_cost(self, block: BlockArchitecture, sequence_length: int = 128) -> Cost:
        """Parameters and FLOPs of a block's operations."""
        return block_cost_of(block, self.options, sequence_length)

    def check_start(self, init: str) -> None:
        """Whether heads, widths and activation can be taken from the teacher, where ``init`` is ``teacher``."""
        self.options.check_start(init)

    def check_inheritance(self) -> None:
        """Whether the linear maps that a path of the supernet has are counted."""
        self.options.check_inheritance()

    def block_genes(self, block: BlockArchitecture) -> dict[str, Any]:
        """Hidden size, number of layers and operations of a block."""
        return {
            "hidden_size": block.hidden_size,
            "layers": len(block.operations),
            "operations": "-".join(block.operations),
        }

    def parts(self) -> Sequence[Part]:
        """Every operation, linear map and embedding table that can occur; see :mod:`spaces.nas_bert.parts`."""
        return part_values.all_parts(self.options)

    def parts_of(self, architecture: NasBertArchitecture) -> Sequence[Part]:
        """The parts of one architecture, in order."""
        return self.parts_of_network(architecture.embedding_size, architecture.blocks)

    def embedding_parts(self, embedding_size: int) -> list[Part]:
        """The embeddings of one size."""
        return part_values.embedding_parts(embedding_size)

    def link_parts(self, width_before: int, width_after: int | None) -> list[Part]:
        """The linear map between two neighbours, where ``options.projections`` puts one."""
        return part_values.link_parts(width_before, width_after, self.options)

    def parts_of_block(self, block: BlockArchitecture) -> list[Part]:
        """The operations of a block, in order."""
        return part_values.parts_of_block(block)

    def part_cost(self, part: Part, sequence_length: int = 128, flops_rule: FlopsRule = "encoder") -> Cost:
        """Parameters and FLOPs of one part."""
        return part_values.part_cost(part, self.options, sequence_length, flops_rule)

    def block_part_counts(self) -> tuple[list[Part], NDArray[np.int64]]:
        """How often each operation occurs in each block architecture."""
        listed: list[Part] = []
        for size in self.options.hidden_sizes:
            listed += part_values.parts_of_block(BlockArchitecture(size, self.options.operations_at(size)))
        counts = np.zeros((self.block_cardinality(), len(listed)), dtype=np.int64)
        row = column = 0
        for size in self.options.hidden_sizes:
            of_size = block_order.operation_counts(size, self.options)
            rows, columns = of_size.shape
            counts[row : row + rows, column : column + columns] = of_size
            row, column = row + rows, column + columns
        return listed, counts

    def build_part(self, part: Part) -> nn.Module:
        """The module of a part with fresh weights, in evaluation mode."""
        from spaces.nas_bert.part_modules import build_part

        return build_part(part, self.options)

    def anchors(self) -> Sequence[NasBertArchitecture]:
        """Transformers of alternating attention and feed-forward: every hidden size, feed-forward kind and depth."""
        options = self.options
        feed_forwards = [operation for operation in options.operations if is_feed_forward(operation)]
        if ATTENTION not in options.operations:
            return ()
        return [
            NasBertArchitecture(
                embedding_size,
                (BlockArchitecture(hidden_size, (ATTENTION, feed_forward) * (depth // 2)),) * options.num_blocks,
            )
            for embedding_size in options.embedding_sizes
            for hidden_size in sorted(options.hidden_sizes, reverse=True)
            for feed_forward in feed_forwards
            for depth in range(options.layers_per_block // 2 * 2, 0, -2)
        ]

    def build(self, architecture: NasBertArchitecture) -> NasBertModel:
        """A stand-alone model with the paper's random start."""
        from spaces.nas_bert.modeling import NasBertModel
        from spaces.nas_bert.stand_alone import configuration_of

        return NasBertModel(configuration_of(architecture, self.options))

    def supernet(self) -> NasBertSupernet:
        """The weight-sharing network of all architectures, with the paper's random start."""
        from spaces.nas_bert.supernet import NasBertSupernet

        return NasBertSupernet(self)


def _extended(way: NasBertArchitecture, block: BlockArchitecture) -> NasBertArchitecture:
    return NasBertArchitecture(way.embedding_size, (*way.blocks, block))


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
