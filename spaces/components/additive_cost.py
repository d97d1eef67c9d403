"""Costs that add up over what architectures of components are made of, and their expectation in closed form.

Shape legend: L layers, N components of a sublayer, C query-key slices, S sublayers of a network, K kinds of counts.

What a sublayer costs is a sum over a few counts (:data:`COUNTS`), each times a price. That covers parameters and FLOPs
exactly, and the additive table of the paper notes (section 3.3): a component costs more behind others than beside them
by the price of a stage. Where every gene is drawn by itself, the mean of each count is a product of probabilities. A
table of latencies is the same with prices that are fitted to measured networks by their counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.distribution import GeneDistribution
from spaces.components.gene_weights import SublayerWeights
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice

COUNTS = ("sublayer", "component", "stage", "component_slice", "plain_component", "plain_stage", "mean")
"""Of one sublayer: whether it is there; its components; its stages; pairs of a component and a query-key slice;
components and stages without any slice; and whether its LayerNorm subtracts the mean."""


def counts_of(choice: SublayerChoice) -> list[int]:
    """The counts of a sublayer, in the order of :data:`COUNTS`."""
    components, stages, slices = len(choice.components), len(choice.stages), len(choice.query_key)
    plain = slices == 0
    there = not choice.is_absent
    return [there, components, stages, components * slices, components * plain, stages * plain, choice.mean]


def expected_counts(chances: SublayerWeights) -> Tensor:
    """The means of the counts, ``[L, K]``, where every bit is drawn by itself with its probability."""
    presence_LN, edges_LN, query_key_LC, mean_L = chances.tensors
    there_L = 1 - (1 - presence_LN).prod(-1)
    followed_LN = 1 - _products_behind(1 - presence_LN)
    components_L = presence_LN.sum(-1)
    stages_L = there_L + (presence_LN * edges_LN * followed_LN).sum(-1)
    slices_L, plain_L = query_key_LC.sum(-1), (1 - query_key_LC).prod(-1)
    columns = (
        there_L,
        components_L,
        stages_L,
        components_L * slices_L,
        components_L * plain_L,
        stages_L * plain_L,
        there_L * mean_L,
    )
    return torch.stack(columns, -1)


def _products_behind(factors_LN: Tensor) -> Tensor:
    """For each place the product over all places behind it; 1 for the last one."""
    products_LN = factors_LN.flip(-1).cumprod(-1).flip(-1)
    return torch.cat([products_LN[:, 1:], torch.ones_like(products_LN[:, :1])], -1)


@dataclass(frozen=True)
class AdditiveCost:
    """A table of prices; see :class:`spaces.sampling_distribution.ExpectedCost`.

    Attributes:
        name: what is counted.
        prices_SK: of each count in each sublayer, from the first layer's attention on; double precision.
        base: what every network costs besides.
    """

    name: str
    prices_SK: Tensor
    base: float = 0.0

    @classmethod
    def alike(
        cls,
        name: str,
        attention: Mapping[str, float],
        feed_forward: Mapping[str, float],
        layers: int,
        base: float = 0.0,
    ) -> AdditiveCost:
        """A table with the same prices in all layers; counts that are not named cost nothing."""
        pair = [[float(half.get(count, 0.0)) for count in COUNTS] for half in (attention, feed_forward)]
        return cls(name, torch.tensor(pair * layers, dtype=torch.float64), base)

    def of(self, architecture: ComponentsArchitecture) -> float:
        """What one architecture costs."""
        counts_SK = torch.tensor([counts_of(choice) for choice in architecture.sublayers], dtype=torch.float64)
        return self.base + float((self.prices_SK * counts_SK).sum())

    def expected(self, distribution: GeneDistribution) -> Tensor:
        """What the architectures of a distribution cost on the average, a double-precision scalar with gradients.

        The network of which nothing is left, which is never drawn, has no counts; so the means of all others are those
        of independent genes divided by the probability that anything is left.
        """
        chances = distribution.probabilities()
        halves = [expected_counts(half.map(torch.Tensor.double)) for half in chances.halves]
        counts_SK = torch.stack(halves, 1).flatten(0, 1)
        total = (self.prices_SK.to(counts_SK.device) * counts_SK).sum()
        return self.base + total * torch.exp(-distribution.log_some().double())


def parameter_prices(options: ComponentsOptions) -> AdditiveCost:
    """Weights behind the embeddings; see :mod:`spaces.components.cost`."""
    hidden, head = options.shape.hidden_size, options.shape.head_size
    attention = {
        "sublayer": 3 * hidden,
        "component": (2 * hidden + 1) * head,
        "component_slice": 2 * (hidden + 1) * options.query_key_size,
    }
    feed_forward = {"sublayer": 3 * hidden, "component": (2 * hidden + 1) * options.slice_size}
    return AdditiveCost.alike("parameters", attention, feed_forward, options.shape.num_layers)


def flops_prices(options: ComponentsOptions, sequence_length: int) -> AdditiveCost:
    """Floating-point operations of the encoder for one sequence; see :mod:`spaces.components.cost`."""
    hidden, head, tokens = options.shape.hidden_size, options.shape.head_size, sequence_length
    mixed = 4 * tokens * head * (hidden + tokens)
    attention = {
        "component": mixed,
        "component_slice": 4 * tokens * hidden * options.query_key_size,
        "plain_component": 4 * hidden * head - mixed,
        "plain_stage": 2 * tokens * hidden,
    }
    feed_forward = {"component": 4 * tokens * hidden * options.slice_size}
    return AdditiveCost.alike("flops", attention, feed_forward, options.shape.num_layers)
