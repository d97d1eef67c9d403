"""EfficientBERT architectures as numbers for predictors, and as columns for dashboards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.efficient_bert.architecture import EfficientBertArchitecture
from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS
from spaces.efficient_bert.numbered_trees import WEIGHTS
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.rules import MOST_NODES

_NODES = {name: number for number, name in enumerate((INPUT, *WEIGHTS, "linear", *COMBINATIONS, *ACTIVATIONS))}
"""What a node of the paper's tree is in the encoding."""


def encode(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> NDArray[np.float64]:
    """Whole numbers, as in the paper's code (paper notes, section 2.4), of what is searched.

    For the expressions 20 places a block: what each node of the tree is, in prefix order, then -1. For the sizes one
    place a block: which (stacked, divisor) of the options it has, from 0. So 6 blocks have 120 numbers where
    expressions are searched, 6 where sizes are, 126 where both are.
    """
    numbers: list[int] = []
    if options.fixed_expressions is None or options.fixed_linear_ids is not None:
        for expression in architecture.expressions:
            found = [_NODES["linear" if name in LINEAR_MAPS else name] for name in expression.prefix()]
            numbers += [*found, *[-1] * (MOST_NODES - len(found))]
    if options.fixed_linear_ids is None:
        numbers += [options.all_sizes.index(choice.sizes) for choice in architecture.blocks]
    return np.array(numbers, dtype=np.float64)


def genes(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> dict[str, Any]:
    """Widths, feed-forwards in all, how often each operator occurs, and each block's sizes and expression."""
    blocks = architecture.blocks
    names = [node.operator for choice in blocks for node in choice.expression.walk()]
    columns: dict[str, Any] = {
        "hidden_size": architecture.hidden_size,
        "embedding_size": options.embedding_size,
        "feed_forwards": sum(choice.stacked for choice in blocks),
        "inner_channels": sum(choice.stacked * options.inner_size(choice.divisor) for choice in blocks),
        "nodes": sum(choice.expression.nodes for choice in blocks),
    }
    columns.update({f"count_{operator}": names.count(operator) for operator in (*ACTIVATIONS, *COMBINATIONS)})
    for number, choice in enumerate(blocks, start=1):
        columns[f"block_{number}_linear_id"] = choice.linear_id
        columns[f"block_{number}_expression"] = str(choice.expression)
    return columns
