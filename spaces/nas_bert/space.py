"""NAS-BERT's search space: sampling, variation, counting and building of block-wise architectures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.cost import block_cost_of, cost_of, operation_parameters
from spaces.nas_bert.operation_names import ATTENTION, is_feed_forward
from spaces.nas_bert.options import NasBertOptions
from spaces.space import BlockwiseSpace, Cost, Decision, Part

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

    def __init__(self, options: NasBertOptions | None = None) -> None:
        self.options = options or NasBertOptions()
        self.num_blocks = self.options.num_blocks

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> NasBertSpace:
        """Make the space from a recipe's options, for a teacher of ``shape`` (BERT-base's without one).

        Raises:
            SpaceError: an option is wrong, or the space does not fit the teacher.
        """
        space = cls(NasBertOptions.from_mapping(options, shape))
        if shape is not None:
            space.options.check_teacher()
        return space

    # --- drawing and varying -------------------------------------------------------------------------------------

    def sample_block(self, rng: random.Random) -> BlockArchitecture:
        """Draw one block by the law of ``options.sampling``."""
        options = self.options
        hidden_size = rng.choice(options.hidden_sizes)
        if options.sampling == "architecture":
            choices = len(options.operations)
            depths = range(1, options.layers_per_block + 1)
            depth = rng.choices(depths, weights=[choices**k for k in depths])[0]
            return BlockArchitecture(hidden_size, tuple(rng.choices(options.operations, k=depth)))
        while True:
            layers = rng.choices((None, *options.operations), k=options.layers_per_block)
            operations = tuple(operation for operation in layers if operation is not None)
            if operations:
                return BlockArchitecture(hidden_size, operations)

    def sample(self, rng: random.Random) -> NasBertArchitecture:
        """Draw an architecture: embedding size uniformly, each block by :meth:`sample_block`."""
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
        moves = ["replace", "replace", "insert", "delete", "resize"]
        rng.shuffle(moves)
        for move in moves:
            position = rng.randrange(len(operations))
            if move == "resize" and len(options.hidden_sizes) > 1:
                sizes = [size for size in options.hidden_sizes if size != block.hidden_size]
                return BlockArchitecture(rng.choice(sizes), operations)
            if move == "replace" and len(options.operations) > 1:
                others = [operation for operation in options.operations if operation != operations[position]]
                changed = (*operations[:position], rng.choice(others), *operations[position + 1 :])
                return BlockArchitecture(block.hidden_size, changed)
            if move == "insert" and len(operations) < options.layers_per_block:
                position = rng.randrange(len(operations) + 1)
                inserted = (*operations[:position], rng.choice(options.operations), *operations[position:])
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
            return f"it has {len(architecture.blocks)} blocks, expected {options.num_blocks}"
        for number, block in enumerate(architecture.blocks, start=1):
            if block.hidden_size not in options.hidden_sizes:
                return f"block {number}: hidden size {block.hidden_size} is not one of {_listed(options.hidden_sizes)}"
            if not 1 <= len(block.operations) <= options.layers_per_block:
                return f"block {number}: {len(block.operations)} layers, expected 1 to {options.layers_per_block}"
            for operation in block.operations:
                if operation not in options.operations:
                    return f"block {number}: operation {operation} is not one of {_listed(options.operations)}"
        return None

    def parse(self, text: str) -> NasBertArchitecture:
        """Read a text form of this space; see :class:`~spaces.space.SearchSpace`."""
        architecture = NasBertArchitecture.parse(text)
        misfit = self._misfit(architecture)
        if misfit is not None:
            raise SpaceError(f"architecture '{text}' is not in the space: {misfit}")
        return architecture

    def block_cardinality(self) -> int:
        """Architectures of one block: hidden sizes times sequences of 1 to ``layers_per_block`` operations."""
        choices = len(self.options.operations)
        sequences: int = sum(choices**k for k in range(1, self.options.layers_per_block + 1))
        return len(self.options.hidden_sizes) * sequences

    def cardinality(self) -> int:
        """Embedding sizes times the block architectures of every block."""
        cardinality: int = len(self.options.embedding_sizes) * self.block_cardinality() ** self.options.num_blocks
        return cardinality

    def enumerate_blocks(self) -> Iterator[BlockArchitecture]:
        """Yield every block architecture once, by hidden size, then depth, then operations."""
        for hidden_size in self.options.hidden_sizes:
            for depth in range(1, self.options.layers_per_block + 1):
                for operations in product(self.options.operations, repeat=depth):
                    yield BlockArchitecture(hidden_size, operations)

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
        options = self.options
        decisions = [Decision("embedding_size", tuple(map(str, options.embedding_sizes)))]
        depths = tuple(str(depth) for depth in range(1, options.layers_per_block + 1))
        for number in range(1, options.num_blocks + 1):
            decisions.append(Decision(f"block_{number}_hidden_size", tuple(map(str, options.hidden_sizes))))
            decisions.append(Decision(f"block_{number}_depth", depths))
            for layer in range(1, options.layers_per_block + 1):
                present = partial(_is_present, f"block_{number}_depth", layer) if layer > 1 else None
                decisions.append(Decision(f"block_{number}_layer_{layer}", options.operations, present))
        return decisions

    def from_decisions(self, chosen: Mapping[str, str]) -> NasBertArchitecture:
        """The architecture of a complete set of choices."""
        blocks = []
        for number in range(1, self.options.num_blocks + 1):
            depth = int(chosen[f"block_{number}_depth"])
            operations = tuple(chosen[f"block_{number}_layer_{layer}"] for layer in range(1, depth + 1))
            blocks.append(BlockArchitecture(int(chosen[f"block_{number}_hidden_size"]), operations))
        return NasBertArchitecture(int(chosen["embedding_size"]), tuple(blocks))

    def to_decisions(self, architecture: NasBertArchitecture) -> dict[str, str]:
        """The choices that lead to ``architecture``."""
        chosen = {"embedding_size": str(architecture.embedding_size)}
        for number, block in enumerate(architecture.blocks, start=1):
            chosen[f"block_{number}_hidden_size"] = str(block.hidden_size)
            chosen[f"block_{number}_depth"] = str(len(block.operations))
            for layer, operation in enumerate(block.operations, start=1):
                chosen[f"block_{number}_layer_{layer}"] = operation
        return chosen

    # --- cost and modules ----------------------------------------------------------------------------------------

    def cost(self, architecture: NasBertArchitecture, sequence_length: int = 128) -> Cost:
        """Parameters and FLOPs by arithmetic; see :mod:`spaces.nas_bert.cost`."""
        return cost_of(architecture, self.options, sequence_length)

    def smallest(self) -> NasBertArchitecture:
        """One cheapest operation a block; the hidden sizes that give the fewest weights, linear maps included."""
        options = self.options

        def cheapest(size: int) -> str:
            units = options.separable_units
            return min(options.operations, key=lambda operation: operation_parameters(operation, size, units))

        candidates = (
            NasBertArchitecture(embedding_size, tuple(BlockArchitecture(size, (cheapest(size),)) for size in sizes))
            for embedding_size in options.embedding_sizes
            for sizes in product(options.hidden_sizes, repeat=options.num_blocks)
        )
        return min(candidates, key=lambda architecture: self.cost(architecture).encoder_parameters)

    def block_cost(self, block: BlockArchitecture, sequence_length: int = 128) -> Cost:
        """Parameters and FLOPs of a block's operations."""
        return block_cost_of(block, self.options, sequence_length)

    def check_start(self, init: str) -> None:
        """Whether heads, widths and activation can be taken from the teacher, where ``init`` is ``teacher``."""
        self.options.check_start(init)

    def block_genes(self, block: BlockArchitecture) -> dict[str, Any]:
        """Hidden size, number of layers and operations of a block."""
        return {
            "hidden_size": block.hidden_size,
            "layers": len(block.operations),
            "operations": "-".join(block.operations),
        }

    def parts(self) -> Sequence[Part]:
        """Every operation, linear map and embedding table that can occur; see :mod:`spaces.nas_bert.parts`."""
        from spaces.nas_bert.parts import all_parts

        return all_parts(self.options)

    def parts_of(self, architecture: NasBertArchitecture) -> Sequence[Part]:
        """The parts of one architecture, in order."""
        from spaces.nas_bert.parts import parts_of

        return parts_of(architecture, self.options)

    def build_part(self, part: Part) -> nn.Module:
        """The module of a part with fresh weights, in evaluation mode."""
        from spaces.nas_bert.parts import build_part

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


def _is_present(depth_name: str, layer: int, chosen: Mapping[str, str]) -> bool:
    return int(chosen[depth_name]) >= layer


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
