"""The parts NAS-BERT models are put together from, as modules whose latency can be measured alone.

Shape legend: B batch, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from torch import Tensor, nn

from spaces.nas_bert.architecture import NasBertArchitecture
from spaces.nas_bert.cost import projection_widths
from spaces.nas_bert.modeling import NasBertEmbeddings
from spaces.nas_bert.operations import build_operation
from spaces.nas_bert.options import NasBertOptions
from spaces.space import Part

OPERATION, PROJECTION, EMBEDDINGS = "operation", "projection", "embeddings"


def all_parts(options: NasBertOptions) -> list[Part]:
    """Every operation at every hidden size, every linear map that can occur, and the embeddings of every size."""
    sizes, interface = options.hidden_sizes, options.shape.hidden_size
    pairs = [*product(options.embedding_sizes, sizes), *product(sizes, sizes), *((size, interface) for size in sizes)]
    if options.projections == "paper":
        pairs = [(a, b) for a, b in pairs[: -len(sizes)] if a != b]
    else:
        pairs = [(a, b) for a, b in pairs if not a == b == interface]
    return [
        *(Part(EMBEDDINGS, EMBEDDINGS, size) for size in options.embedding_sizes),
        *(Part(OPERATION, operation, size) for size, operation in product(sizes, options.operations)),
        *(Part(PROJECTION, PROJECTION, outputs, inputs) for inputs, outputs in dict.fromkeys(pairs)),
    ]


def parts_of(architecture: NasBertArchitecture, options: NasBertOptions) -> Sequence[Part]:
    """The parts of one architecture, in order."""
    parts = [Part(EMBEDDINGS, EMBEDDINGS, architecture.embedding_size)]
    widths = projection_widths(architecture, options)
    for pair, block in zip(widths, architecture.blocks, strict=False):
        if pair is not None:
            parts.append(Part(PROJECTION, PROJECTION, pair[1], pair[0]))
        parts.extend(Part(OPERATION, operation, block.hidden_size) for operation in block.operations)
    if widths[-1] is not None:
        parts.append(Part(PROJECTION, PROJECTION, widths[-1][1], widths[-1][0]))
    return parts


class _WithoutMask(nn.Module):
    """Lets a part that needs no mask be called like one that does."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the part; the mask is not used."""
        output: Tensor = self.part(hidden)
        return output


def build_part(part: Part, options: NasBertOptions) -> nn.Module:
    """The module of a part, in evaluation mode."""
    shape = options.shape
    if part.kind == OPERATION:
        return build_operation(
            part.name,
            part.size,
            head_size=options.head_size,
            separable_units=options.separable_units,
            dropout=0.0,
            layer_norm_eps=shape.layer_norm_eps,
        ).eval()
    if part.kind == PROJECTION:
        assert part.input_size is not None
        return _WithoutMask(nn.Linear(part.input_size, part.size)).eval()
    embeddings = NasBertEmbeddings(
        part.size,
        shape.vocab_size,
        shape.max_positions,
        options.type_vocab_size,
        shape.pad_token_id,
        0.0,
        shape.layer_norm_eps,
    )
    return _WithoutMask(embeddings).eval()
