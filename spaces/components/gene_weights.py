"""The genes of a network as numbers, whole or in between, for searches that learn them.

Shape legend: L layers, N components of a sublayer, C query-key slices, X any dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import Gene, SublayerChoice, SublayerKind


class LayerWeights(NamedTuple):
    """Real-valued genes of one sublayer; see :class:`SublayerWeights`."""

    presence_N: Tensor
    edges_N: Tensor
    query_key_C: Tensor
    mean: Tensor


@dataclass(frozen=True)
class SublayerWeights:
    """Real-valued genes of the attention, or of the feed-forward, of all layers.

    With zeros and ones they are an architecture's, and any tensor may want a gradient.

    Attributes:
        presence_LN: what each component's output is multiplied by: 0 where it is dropped, 1 where it is kept.
        edges_LN: w of the operator Psi behind each component: 0 beside the next one, 1 in front of it. Of a component
            that is dropped it has to be 0, or what waits is merged there.
        query_key_LC: what each query-key slice's share of the scores is multiplied by; C is 0 for feed-forwards.
        mean_L: by how much of the mean the LayerNorm behind it moves.
    """

    presence_LN: Tensor
    edges_LN: Tensor
    query_key_LC: Tensor
    mean_L: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of them, in the order of the attributes."""
        return self.presence_LN, self.edges_LN, self.query_key_LC, self.mean_L

    def of_layer(self, layer: int) -> LayerWeights:
        """The genes of one layer, counted from 0."""
        return LayerWeights(*(tensor[layer] for tensor in self.tensors))

    def map(self, function: Callable[[Tensor], Tensor]) -> SublayerWeights:
        """The same of every tensor."""
        return SublayerWeights(*map(function, self.tensors))


@dataclass(frozen=True)
class GeneWeights:
    """Real-valued genes of a network."""

    attention: SublayerWeights
    feed_forward: SublayerWeights

    @property
    def halves(self) -> tuple[SublayerWeights, SublayerWeights]:
        """Attention, then feed-forward."""
        return self.attention, self.feed_forward

    def map(self, function: Callable[[Tensor], Tensor]) -> GeneWeights:
        """The same of every tensor."""
        return GeneWeights(self.attention.map(function), self.feed_forward.map(function))

    @classmethod
    def of(
        cls, architecture: ComponentsArchitecture, options: ComponentsOptions, like: Tensor | None = None
    ) -> GeneWeights:
        """The zeros and ones of an architecture.

        Args:
            architecture: a member of the space.
            options: of the space.
            like: whose dtype and device they get; float32 on the CPU by default.
        """
        like = torch.zeros(()) if like is None else like
        attention, feed_forward = options.kinds
        return cls(
            _weights([layer.attention for layer in architecture.layers], attention, like),
            _weights([layer.feed_forward for layer in architecture.layers], feed_forward, like),
        )


def _weights(choices: list[SublayerChoice], kind: SublayerKind, like: Tensor) -> SublayerWeights:
    genes = [choice.genes(kind.components) for choice in choices]
    slices = [[number in choice.query_key for number in range(kind.query_key)] for choice in choices]
    tables = (
        [[gene != Gene.DROPPED for gene in layer] for layer in genes],
        [[gene == Gene.VERTICAL for gene in layer] for layer in genes],
        slices,
        [choice.mean for choice in choices],
    )
    return SublayerWeights(*(torch.tensor(table, dtype=like.dtype, device=like.device) for table in tables))


def later_kept(presence_XN: Tensor) -> Tensor:
    """How many of the components behind each one are kept; the edge of one that none follows makes no difference."""
    return presence_XN.flip(-1).cumsum(-1).flip(-1) - presence_XN
