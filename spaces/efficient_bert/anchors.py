"""Well-known architectures of EfficientBERT's space: plain ones of every size, and what the paper's search found."""

from __future__ import annotations

from spaces.efficient_bert.architecture import EfficientBertArchitecture, architecture_of
from spaces.efficient_bert.cost import block_parameters
from spaces.efficient_bert.expressions import PLAIN
from spaces.efficient_bert.options import EfficientBertOptions

PUBLISHED = (
    "4_2:tanh(linear2(gelu(linear1(x))))",
    "2_1:elu(linear2(gelu(linear1(x))))",
    "1_2:sigmoid(linear2(relu(linear1(x))))",
    "2_2:linear2(gelu(linear1(max(x,tanh(x)))))",
    "1_2:linear2(relu(mul(linear1(x),x)))",
    "2_3:leaky_relu(linear2(gelu(linear1(x))))",
)
"""The six blocks of EfficientBERT (paper notes, section 5); EfficientBERT++ has each of them twice in a row."""


def published(hidden_size: int, layers: int) -> EfficientBertArchitecture | None:
    """The published architecture at a hidden size; ``None`` unless the layers are a multiple of its six blocks."""
    times, rest = divmod(layers, len(PUBLISHED))
    if rest:
        return None
    return EfficientBertArchitecture.parse(
        "|".join((str(hidden_size), *(one for one in PUBLISHED for _ in range(times))))
    )


def regular(options: EfficientBertOptions) -> list[EfficientBertArchitecture]:
    """Blocks that are all alike, plain where expressions are searched, of every size that can be had, largest first."""
    expressions = [options.fixed_expression(block) or PLAIN for block in range(options.layers)]
    if options.fixed_linear_ids is not None:
        sizes = [options.sizes_of_block(block)[0] for block in range(options.layers)]
        return [architecture_of(options.hidden_size, sizes, expressions)]
    by_size = sorted(options.all_sizes, key=lambda sizes: block_parameters(sizes, options), reverse=True)
    return [architecture_of(options.hidden_size, [sizes] * options.layers, expressions) for sizes in by_size]
