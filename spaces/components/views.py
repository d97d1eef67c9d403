"""Architectures of components as numbers for predictors, and as columns for dashboards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import Gene


def encode(architecture: ComponentsArchitecture, options: ComponentsOptions) -> NDArray[np.float64]:
    """Bits, 0 or 1, of all that is searched, sublayer by sublayer.

    For each component whether it is kept, then for each whether its edge is vertical; for each query-key slice whether
    it is kept; then the mean. What the space's limit drops has no bits.
    """
    numbers: list[float] = []
    for kind, fixed, choice in zip(options.sublayers, options.fixed, architecture.sublayers, strict=True):
        if fixed is None:
            genes = kind.genes_of(choice)
            numbers += [gene != Gene.DROPPED for gene in genes]
            numbers += [gene == Gene.VERTICAL for gene in genes]
            numbers += kind.bits_of(choice)
    return np.array(numbers, dtype=np.float64)


def genes(architecture: ComponentsArchitecture, options: ComponentsOptions) -> dict[str, Any]:
    """Widths, how many layers, components, stages and means are left, and what each layer is made of."""
    sublayers = architecture.sublayers
    columns: dict[str, Any] = {
        "hidden_size": options.shape.hidden_size,
        "embedding_size": options.shape.hidden_size,
        "layers": sum(
            not (layer.attention.is_absent and layer.feed_forward.is_absent) for layer in architecture.layers
        ),
        "attention_blocks": sum(len(layer.attention.stages) for layer in architecture.layers),
        "feed_forward_blocks": sum(len(layer.feed_forward.stages) for layer in architecture.layers),
        "heads": sum(len(layer.attention.components) for layer in architecture.layers),
        "query_key_slices": sum(len(choice.query_key) for choice in sublayers),
        "neurons": options.slice_size * sum(len(layer.feed_forward.components) for layer in architecture.layers),
        "means": sum(choice.mean for choice in sublayers),
    }
    for number, layer in enumerate(architecture.layers, start=1):
        columns[f"layer_{number}"] = str(layer)
    return columns
