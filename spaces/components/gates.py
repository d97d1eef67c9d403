"""An architecture that is run with a gate at every gene, so that the genes learn what a little more or less would do.

The values are the architecture's, and so is what comes out. All components that may be kept are computed, in a few
dense *spans* of neighbours, the dropped ones with a gate of 0 on their outputs: that costs what the largest
architecture does, whatever is drawn, and gives the gradient of every presence, slice and mean. A span ends behind a
vertical edge, whose gate is the operator Psi's w. What a horizontal edge would do if it opened needs what stands before
and behind it apart: one of each sublayer is *probed*, drawn evenly, where a span ends too, and its gradient stands for
those of all of them. Where edges are not searched none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.gene_weights import GeneWeights
from spaces.components.sublayers import SublayerChoice


@dataclass(frozen=True)
class Span:
    """Neighbouring components that are computed together.

    Attributes:
        components: counted from 0, those that may not be kept among them.
        merges: whether the stream takes up what waits behind them.
        weight: how many edges that behind them stands for; 0 where it has no gate.
    """

    components: range
    merges: bool
    weight: int


@dataclass(frozen=True)
class SublayerPlan:
    """How the gates of one sublayer are run.

    Attributes:
        spans: all of its components.
        mean: whether its LayerNorm subtracts the mean.
        may_vanish: whether it is absent, or would be with one component less.
    """

    spans: tuple[Span, ...]
    mean: bool
    may_vanish: bool


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
        for place, choice in enumerate(architecture.sublayers):
            number = int(torch.randint(2**62, (), generator=generator))
            inner = _horizontal(choice) if weights.halves[place % 2].edges_LN.requires_grad else []
            probes.append(inner[number % len(inner)] if inner else None)
        return cls(architecture, weights, tuple(probes))

    def plan(self, sublayer: int) -> SublayerPlan:
        """How a sublayer, by its number from 0, is run."""
        choice, half = self.architecture.sublayers[sublayer], self.weights.halves[sublayer % 2]
        components = half.presence_LN.shape[1]
        spans = tuple(_spans(choice, self.probes[sublayer], components))
        mean = self._means[sublayer % 2][sublayer // 2]
        return SublayerPlan(spans, mean, len(choice.components) < 2)

    @cached_property
    def _means(self) -> list[list[bool]]:
        """Of both halves, asked for once: an accelerator has to be waited for. Absent sublayers have them too."""
        return [(half.mean_L.detach() > 0.5).tolist() for half in self.weights.halves]


def _horizontal(choice: SublayerChoice) -> list[int]:
    """The components whose edges are horizontal and make a difference."""
    return [component for stage in choice.stages for component in stage[:-1]]


def _spans(choice: SublayerChoice, probe: int | None, components: int) -> Iterator[Span]:
    vertical = {stage[-1] for stage in choice.stages[:-1]}
    start = 0
    for last in sorted(vertical if probe is None else vertical | {probe}):
        yield Span(range(start, last + 1), last in vertical, 1 if last in vertical else len(_horizontal(choice)))
        start = last + 1
    yield Span(range(start, components), True, 0)
