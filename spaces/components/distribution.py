"""A distribution over compositions in which every gene and bit is drawn by itself, from probabilities that are learned.

Shape legend: S architectures, L layers, N components of a sublayer, C query-key slices.

A ternary gene (dropped, beside, behind) is two bits: whether the component is kept, and, where it is, whether its edge
is vertical (paper notes, section 3.3). Some genes make no difference: edges of dropped and of last components, slices
and mean of an absent sublayer. The probability of an architecture is that of all genes that spell it, so that those of
all architectures add up to 1; of the network of which nothing is left there are none, and the rest is scaled up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from spaces.components.anchors import whole
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.gates import Gates
from spaces.components.gene_weights import GeneWeights, SublayerWeights, later_kept
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import Gene, SublayerChoice, stages_of
from spaces.sampling_distribution import SamplingDistribution

_NAMES = tuple(field.name for field in fields(SublayerWeights))
_LEAST = 1e-12
_LOWEST, _NEVER = -80.0, -1e4
"""The least log-odds of what may be, whose probability is above 0 in single precision, and those of what is dropped,
whose probability, and the logarithm of that of the opposite, are 0 exactly."""


class SublayerDistribution(nn.Module):
    """The bits of the attention, or of the feed-forward, of all layers.

    Bits of what the space drops are 0: what stands at their places below is not looked at, and never changes.

    Attributes:
        presence_LN: log-odds that a component is kept.
        edges_LN: log-odds that the edge of one that is kept is vertical; ``None`` where no edge can be.
        query_key_LC: log-odds that a query-key slice is kept.
        mean_L: log-odds that the mean is kept.

    Args:
        largest: the bits of the largest sublayers, outside which nothing is kept.
        has_edges: whether edges may be vertical.
        keep: the probability, to begin with, of a component, a slice and a mean to be kept.
        vertical: that of a vertical edge where the largest sublayer has a horizontal one, and the other way round.
    """

    def __init__(self, largest: SublayerWeights, has_edges: bool, keep: float, vertical: float) -> None:
        super().__init__()
        kept, beside, behind = _log_odds(keep), _log_odds(vertical), -_log_odds(vertical)
        presence_LN, edges_LN, query_key_LC, mean_L = (bits > 0 for bits in largest.tensors)
        self.presence_LN = nn.Parameter(torch.full(presence_LN.shape, kept))
        stages_LN = edges_LN & (later_kept(largest.presence_LN) > 0)  # the last edge is one by convention
        self.edges_LN = nn.Parameter(torch.where(stages_LN, behind, beside)) if has_edges else None
        self.query_key_LC = nn.Parameter(torch.full(query_key_LC.shape, kept))
        self.mean_L = nn.Parameter(torch.full(mean_L.shape, kept))
        for name, bits in zip(_NAMES, (presence_LN, presence_LN, query_key_LC, mean_L), strict=True):
            self.register_buffer(f"_may_be_{name}", bits, persistent=False)

    @property
    def odds(self) -> SublayerWeights:
        """The log-odds of every bit; of those that are never 1 so low that they play no part in any sum."""
        never = torch.full((), _NEVER, device=self.presence_LN.device, dtype=self.presence_LN.dtype)
        found = []
        for name in _NAMES:
            logits, may_be = getattr(self, name), getattr(self, f"_may_be_{name}")
            found.append(
                never.expand(may_be.shape) if logits is None else torch.where(may_be, logits.clamp(min=_LOWEST), never)
            )
        return SublayerWeights(*found)

    def probabilities(self) -> SublayerWeights:
        """Of every bit to be 1; of edges, where their component is kept."""
        return self.odds.map(torch.sigmoid)

    def log_absent(self) -> Tensor:
        """The logarithm of the probability that nothing is kept of any sublayer."""
        return F.logsigmoid(-self.odds.presence_LN).sum()

    def log_probability(self, genes_S: SublayerWeights) -> Tensor:
        """Of some choices in all layers, bits in front of which dimensions S may stand; ``[S]``."""
        presence_SLN, edges_SLN, query_key_SLC, mean_SL = genes_S.tensors
        odds, present_SL = self.odds, presence_SLN.amax(-1)
        matters_SLN = presence_SLN * (later_kept(presence_SLN) > 0)
        found_SL = _log_likelihood(presence_SLN, odds.presence_LN).sum(-1)
        found_SL = found_SL + (matters_SLN * _log_likelihood(edges_SLN, odds.edges_LN)).sum(-1)
        bits_SL = _log_likelihood(query_key_SLC, odds.query_key_LC).sum(-1) + _log_likelihood(mean_SL, odds.mean_L)
        return (found_SL + present_SL * bits_SL).sum(-1)

    def entropy(self) -> Tensor:
        """Of all genes and bits together."""
        odds, presence_LN = self.odds, self.probabilities().presence_LN
        found = _entropy(odds.presence_LN).sum() + _entropy(odds.query_key_LC).sum() + _entropy(odds.mean_L).sum()
        return found + (presence_LN * _entropy(odds.edges_LN)).sum()

    def gates(self, genes: SublayerWeights, noise: SublayerWeights, temperature: float) -> SublayerWeights:
        """Bits as they were drawn, with the gradient of the binary concrete that gave them."""
        rows = zip(self.odds.tensors, genes.tensors, noise.tensors, strict=True)
        return SublayerWeights(*(_gate(odds, bits, one, temperature) for odds, bits, one in rows))


class GeneDistribution(SamplingDistribution[ComponentsArchitecture]):
    """A distribution over the architectures of a space of components; see the head of the file.

    Args:
        options: of the space; what is fixed there is certain here.
        keep: the probability, to begin with, of a component, a slice and a mean to be kept.
        vertical: that of a vertical edge, where the largest architecture has a horizontal one, and the other way round.
            High and low, what is drawn is nearly the largest: the teacher, or what the space lies within.
    """

    def __init__(self, options: ComponentsOptions, keep: float = 0.95, vertical: float = 0.05) -> None:
        super().__init__()
        self.options = options
        largest = GeneWeights.of(whole(options), options)
        self.attention, self.feed_forward = (
            SublayerDistribution(bits, kind.vertical, keep, vertical) if None in options.fixed[place::2] else None
            for place, (kind, bits) in enumerate(zip(options.kinds, largest.halves, strict=True))
        )
        given = [SublayerChoice() if fixed is None else fixed for fixed in options.fixed]
        self._given = GeneWeights.of(ComponentsArchitecture.of_sublayers(given), options)
        self._may_vanish = all(fixed is None or fixed.is_absent for fixed in options.fixed)

    @property
    def _halves(self) -> tuple[SublayerDistribution | None, SublayerDistribution | None]:
        return self.attention, self.feed_forward

    def searched(self) -> Iterator[tuple[int, SublayerDistribution]]:
        """What there is to learn, with its place: 0 for attention, 1 for feed-forwards."""
        for place, half in enumerate(self._halves):
            if half is not None:
                yield place, half

    # --- probabilities -------------------------------------------------------------------------------------------

    def probabilities(self) -> GeneWeights:
        """Of every bit to be 1, drawn by itself; 0 and 1 where it is fixed."""
        pairs, device = zip(self._halves, self._given.halves, strict=True), self._device
        found = (
            given.map(lambda one: one.to(device)) if half is None else half.probabilities() for half, given in pairs
        )
        return GeneWeights(*found)

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def log_some(self) -> Tensor:
        """The logarithm of the probability that anything is kept, when every gene is drawn by itself."""
        searched = [half.log_absent() for _, half in self.searched()]
        if not self._may_vanish or not searched:
            return torch.zeros((), device=self._device)
        return torch.log(-torch.expm1(torch.stack(searched).sum()))

    def log_probability(self, architectures: Sequence[ComponentsArchitecture]) -> Tensor:
        """The logarithm of each one's probability, ``[S]``."""
        found_S = -self.log_some().expand(len(architectures))
        like = found_S.detach()
        genes = [GeneWeights.of(one, self.options, like) for one in architectures]
        for place, half in self.searched():
            columns = zip(*(one.halves[place].tensors for one in genes), strict=True)
            found_S = found_S + half.log_probability(SublayerWeights(*map(torch.stack, columns)))
        return found_S

    def entropy(self) -> Tensor:
        """Of all genes, drawn by themselves: no less than that of the architectures they spell."""
        return sum((half.entropy() for _, half in self.searched()), start=torch.zeros((), device=self._device))

    def most_likely(self) -> ComponentsArchitecture:
        """What the likeliest genes spell: every bit by whether its probability is above one half.

        Were nothing kept, the likeliest component would be.
        """
        genes = self._on_the_processor().map(lambda chance: (chance > 0.5).double())
        if self._may_vanish and not any(half.presence_LN.any() for half in genes.halves):
            odds = {place: half.odds.presence_LN.detach() for place, half in self.searched()}
            likeliest = max(odds, key=lambda place: float(odds[place].max()))
            genes.halves[likeliest].presence_LN.view(-1)[int(odds[likeliest].argmax())] = 1.0
        return self.architecture_of(genes)

    # --- drawing -------------------------------------------------------------------------------------------------

    def draw(self, generator: torch.Generator) -> ComponentsArchitecture:
        """Draw all genes, and say what they spell."""
        return self.architecture_of(self.draw_genes(generator))

    @torch.no_grad()
    def draw_genes(self, generator: torch.Generator) -> GeneWeights:
        """Draw zeros and ones, on the processor, of which at least one component is kept."""
        chances = self._on_the_processor()
        genes = chances.map(lambda chance: (_uniform(chance, generator) < chance).double())
        if self._may_vanish:
            _keep_one(chances, genes, float(torch.rand((), generator=generator, dtype=torch.float64)))
        return genes

    def draw_gates(self, generator: torch.Generator, temperature: float) -> Gates:
        """See :meth:`SamplingDistribution.draw_gates`; the temperature is tau of the paper notes' estimator 1."""
        genes = self.draw_genes(generator)
        noise = genes.map(lambda bits: _uniform(bits, generator))
        rows, like = zip(self._halves, genes.halves, noise.halves, strict=True), next(self.parameters())
        gates = (
            bits.map(lambda one: one.to(like)) if half is None else half.gates(bits, one, temperature)
            for half, bits, one in rows
        )
        return Gates.of(self.architecture_of(genes), GeneWeights(*gates), generator)

    def architecture_of(self, genes: GeneWeights) -> ComponentsArchitecture:
        """What zeros and ones spell."""
        layers = zip(*map(_choices, genes.halves), strict=True)
        return ComponentsArchitecture.of_sublayers([choice for layer in layers for choice in layer])

    @torch.no_grad()
    def _on_the_processor(self) -> GeneWeights:
        """Probabilities in double precision."""
        return self.probabilities().map(lambda chance: chance.cpu().double())


def _keep_one(chances: GeneWeights, genes: GeneWeights, number: float) -> None:
    """Make sure that a component is kept, so that what is drawn follows the law of networks of which one is.

    The first one that is kept is drawn by its own law; those in front of it are dropped, and those behind it stay.
    """
    chance = torch.cat([half.presence_LN.flatten() for half in chances.halves])
    reached = -torch.expm1(torch.log1p(-chance.clamp(max=1 - _LEAST)).cumsum(0))
    last = int(chance.nonzero().max())  # where rounding would lead beyond all of them
    first = min(int(torch.searchsorted(reached, number * reached[-1], right=True)), last)
    places = torch.arange(len(chance))
    kept = torch.cat([half.presence_LN.flatten() for half in genes.halves])
    kept = torch.where(places == first, 1.0, torch.where(places < first, 0.0, kept))
    for half, bits in zip(genes.halves, kept.split([half.presence_LN.numel() for half in genes.halves]), strict=True):
        half.presence_LN.copy_(bits.view_as(half.presence_LN))


def _choices(genes: SublayerWeights) -> list[SublayerChoice]:
    """What zeros and ones make of the sublayers of one kind."""
    columns = (tensor.int().tolist() for tensor in genes.tensors)
    return [_choice(*layer) for layer in zip(*columns, strict=True)]


def _choice(presence: list[int], edges: list[int], slices: list[int], mean: int) -> SublayerChoice:
    found = (Gene.HORIZONTAL + edge if kept else Gene.DROPPED for kept, edge in zip(presence, edges, strict=True))
    return SublayerChoice(stages_of(found), tuple(number for number, kept in enumerate(slices) if kept), bool(mean))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64)


def _gate(logits: Tensor, bits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Bits that were drawn, with the gradient of ``sigmoid((logits + logistic noise) / temperature)``.

    The logistic noise is drawn afterwards, by its law given that its threshold gave these bits.
    """
    chance = torch.sigmoid(logits.detach().cpu().double())
    level = torch.where(bits > 0, 1 - chance * (1 - noise), (1 - chance) * noise).clamp(_LEAST, 1 - _LEAST)
    relaxed = torch.sigmoid((logits + torch.logit(level).to(logits)) / temperature)
    return bits.to(logits) + (relaxed - relaxed.detach())


def _log_likelihood(bits: Tensor, logits: Tensor) -> Tensor:
    return bits * F.logsigmoid(logits) + (1 - bits) * F.logsigmoid(-logits)


def _entropy(logits: Tensor) -> Tensor:
    chance = torch.sigmoid(logits)
    return -(chance * F.logsigmoid(logits) + (1 - chance) * F.logsigmoid(-logits))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
