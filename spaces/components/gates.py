"""An architecture that is run with a gate at every gene, so that the genes learn what a little more or less would do.

The values are the architecture's, and so is what comes out. All components are computed, in a few dense *spans* of
neighbours, the dropped ones with a gate of 0 on their outputs: that costs what the teacher does, whatever is drawn, and
gives the gradient of every presence, slice and mean. A span ends behind a vertical edge, whose gate is the operator
Psi's w. What a horizontal edge would do if it opened needs what stands before and behind it apart: one of each sublayer
is *probed*, drawn evenly, where a span ends too, and its gradient stands for those of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.composition import Edge
from spaces.components.gene_weights import GeneWeights
from spaces.components.sublayers import SublayerChoice

Span = tuple[range, Edge]
"""Neighbouring components, and the edge behind them."""


@dataclass(frozen=True)
class Gates:
    """An architecture with its gates.

    Attributes:
        architecture: what is run.
        weights: its genes, zeros and ones that have gradients.
        probes: of each sublayer the component whose horizontal edge is probed, counted from 0; ``None``: there is none.
    """

    architecture: ComponentsArchitecture
    weights: GeneWeights
    probes: tuple[int | None, ...]

    @classmethod
    def of(cls, architecture: ComponentsArchitecture, weights: GeneWeights, generator: torch.Generator) -> Gates:
        """Draw the edges that are probed."""
        probes: list[int | None] = []
        for choice in architecture.sublayers:
            number = int(torch.randint(2**62, (), generator=generator))
            inner = _horizontal(choice)
            probes.append(inner[number % len(inner)] if inner else None)
        return cls(architecture, weights, tuple(probes))

    def spans(self, sublayer: int) -> list[Span]:
        """The spans of a sublayer by its number from 0, and their edges."""
        half = self.weights.halves[sublayer % 2]
        presence_N, edges_N = half.presence_LN[sublayer // 2], half.edges_LN[sublayer // 2]
        return list(_spans(self.architecture.sublayers[sublayer], self.probes[sublayer], presence_N, edges_N))

    def may_vanish(self, sublayer: int) -> bool:
        """Whether a sublayer is absent, or would be by one component less."""
        return len(self.architecture.sublayers[sublayer].components) < 2


def _horizontal(choice: SublayerChoice) -> list[int]:
    """The components whose edges are horizontal and make a difference."""
    return [component for stage in choice.stages for component in stage[:-1]]


def _spans(choice: SublayerChoice, probe: int | None, presence_N: Tensor, edges_N: Tensor) -> Iterator[Span]:
    vertical = {stage[-1] for stage in choice.stages[:-1]}
    start = 0
    for last in sorted(vertical if probe is None else vertical | {probe}):
        edge = presence_N[last] * edges_N[last]
        if last == probe:
            edge = len(_horizontal(choice)) * edge
        yield range(start, last + 1), edge
        start = last + 1
    yield range(start, len(presence_N)), 0.0
