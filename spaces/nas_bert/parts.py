"""The parts NAS-BERT models are put together from, as values whose costs and latencies add up."""

from __future__ import annotations

from itertools import product

from spaces.nas_bert.architecture import BlockArchitecture
from spaces.nas_bert.cost import embedding_cost, link_widths, operation_cost, projection_cost
from spaces.nas_bert.options import NasBertOptions
from spaces.space import Cost, FlopsRule, Part

OPERATION, PROJECTION, EMBEDDINGS = "operation", "projection", "embeddings"


def embedding_parts(embedding_size: int) -> list[Part]:
    """The embeddings of one size, a part of their own."""
    return [Part(EMBEDDINGS, EMBEDDINGS, embedding_size)]


def parts_of_block(block: BlockArchitecture) -> list[Part]:
    """The operations of a block, in order."""
    return [Part(OPERATION, operation, block.hidden_size) for operation in block.operations]


def link_parts(before: int, after: int | None, options: NasBertOptions) -> list[Part]:
    """The linear map between two widths, if there is one; see :func:`~spaces.nas_bert.cost.link_widths`."""
    widths = link_widths(before, after, options)
    return [] if widths is None else [Part(PROJECTION, PROJECTION, widths[1], widths[0])]


def all_parts(options: NasBertOptions) -> list[Part]:
    """Every operation at every hidden size, every linear map that can occur, and the embeddings of every size."""
    sizes = options.hidden_sizes
    links = [*product(options.embedding_sizes, sizes), *product(sizes, sizes), *((size, None) for size in sizes)]
    return [
        *(part for size in options.embedding_sizes for part in embedding_parts(size)),
        *(Part(OPERATION, operation, size) for size in sizes for operation in options.operations_at(size)),
        *dict.fromkeys(part for before, after in links for part in link_parts(before, after, options)),
    ]


def part_cost(part: Part, options: NasBertOptions, sequence_length: int, flops_rule: FlopsRule) -> Cost:
    """What one part costs by arithmetic."""
    if part.kind == OPERATION:
        return operation_cost(part.name, part.size, options, sequence_length)
    if part.kind == PROJECTION:
        assert part.input_size is not None
        return projection_cost(part.input_size, part.size, sequence_length)
    return embedding_cost(part.size, options, sequence_length, flops_rule)
