"""The toy space with a distribution over it, for strategies that learn one.

Shape legend: W widths, L layers, K operations, S architectures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.testing.toy_space import OPERATIONS, ToyArchitecture, ToySpace
from spaces.sampled_space import CostName, SampledSpace
from spaces.sampling_distribution import SamplingDistribution

LETTERS = list(OPERATIONS)


class ToyDistribution(SamplingDistribution[ToyArchitecture]):
    """Width, depth, and the operation of each layer that is there, each drawn by itself; around the largest."""

    def __init__(self, space: ToySpace, certainty: float) -> None:
        super().__init__()
        self.space = space
        self.width_W = nn.Parameter(_logits(len(space.widths), certainty))
        self.depth_L = nn.Parameter(_logits(space.layers, certainty))
        self.operations_LK = nn.Parameter(_logits(len(LETTERS), certainty).repeat(space.layers, 1))

    def draw(self, generator: torch.Generator) -> ToyArchitecture:
        widths_W, depths_L, operations_LK = (one.detach().double().softmax(-1) for one in self.parameters())
        width = self.space.widths[_drawn(widths_W, generator)]
        depth = 1 + _drawn(depths_L, generator)
        return ToyArchitecture(width, tuple(LETTERS[_drawn(operations_LK[at], generator)] for at in range(depth)))

    def draw_gates(self, generator: torch.Generator, temperature: float) -> ToyArchitecture:
        raise NotImplementedError("no supernet is trained with it")

    def log_probability(self, architectures: Sequence[ToyArchitecture]) -> Tensor:
        widths_W, depths_L, operations_LK = (one.log_softmax(-1) for one in self.parameters())
        found_S = []
        for one in architectures:
            chosen = [operations_LK[at, LETTERS.index(letter)] for at, letter in enumerate(one.operations)]
            found_S.append(widths_W[self.space.widths.index(one.width)] + depths_L[len(chosen) - 1] + sum(chosen))
        return torch.stack(found_S)

    def most_likely(self) -> ToyArchitecture:
        width, depth = int(self.width_W.argmax()), 1 + int(self.depth_L.argmax())
        letters = [LETTERS[at] for at in self.operations_LK.argmax(-1).tolist()]
        return ToyArchitecture(self.space.widths[width], tuple(letters[:depth]))

    def entropy(self) -> Tensor:
        return sum((-(one.softmax(-1) * one.log_softmax(-1)).sum() for one in self.parameters()), torch.zeros(()))


@dataclass(frozen=True)
class ToyCost:
    """Weights, or operations, of the layers: the width squared, times a sum over layers."""

    space: ToySpace
    name: CostName
    tokens: int

    def of(self, architecture: ToyArchitecture) -> float:
        cost = self.space.cost(architecture, self.tokens)
        return float(cost.flops if self.name == "flops" else cost.encoder_parameters)

    def expected(self, distribution: ToyDistribution) -> Tensor:
        widths_W, depths_L, operations_LK = (one.softmax(-1) for one in distribution.parameters())
        there_L = depths_L.flip(0).cumsum(0).flip(0)
        prices = [[self.of(ToyArchitecture(width, (letter,))) for letter in LETTERS] for width in self.space.widths]
        prices_WK = torch.tensor(prices, dtype=widths_W.dtype)
        return widths_W @ prices_WK @ (there_L[:, None] * operations_LK).sum(0)


class SampledToySpace(ToySpace, SampledSpace[ToyArchitecture]):
    """The toy space with a distribution; its supernet is the toy's, with which no distribution is trained."""

    def largest(self) -> ToyArchitecture:
        return ToyArchitecture(self.widths[-1], (LETTERS[-1],) * self.layers)

    def distribution(self, certainty: float = 0.95) -> ToyDistribution:
        return ToyDistribution(self, certainty)

    def expected_cost(self, name: CostName, sequence_length: int) -> ToyCost:
        return ToyCost(self, name, sequence_length)


def _logits(choices: int, certainty: float) -> Tensor:
    """Of the last choice with a probability of ``certainty``, and all others alike."""
    others = math.log((1 - certainty) / max(1, choices - 1))
    return torch.tensor([*[others] * (choices - 1), math.log(certainty)])


def _drawn(chances: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(chances, 1, generator=generator))
