"""What the latency of a network of components is a sum over, and fitted prices of that as an additive cost.

Shape legend: K terms of a sublayer, C counts of a sublayer.

The additive table of the paper notes (section 3.3) has two prices for a component: a smaller one beside others, a
larger one where it opens a stage behind them. On a device a head without queries and keys is another thing than one
with them, and a LayerNorm without the mean is another kernel, which may well be slower. So each of them has a price of
its own here, none of which is below zero, and all are linear in the counts of
:mod:`spaces.components.additive_cost`: what prices say of a network, :class:`AdditiveCost` says too, and so it knows
what the networks of a distribution cost on the average.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.components.additive_cost import COUNTS, AdditiveCost, counts_of
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice, SublayerKind
from spaces.sampled_space import MarginalLatency

NORM, NORM_WITHOUT_MEAN = "norm", "norm_without_mean"
COMPONENT, COMPONENT_SLICE, STAGE = "component", "component_slice", "stage"
PLAIN_COMPONENT, PLAIN_STAGE = "plain_component", "plain_stage"

_NORMS: dict[str, dict[str, int]] = {NORM: {"mean": 1}, NORM_WITHOUT_MEAN: {"sublayer": 1, "mean": -1}}
_TERMS: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]] = (
    {
        **_NORMS,
        COMPONENT: {"component": 1, "plain_component": -1},
        PLAIN_COMPONENT: {"plain_component": 1},
        COMPONENT_SLICE: {"component_slice": 1},
        STAGE: {"stage": 1, "plain_stage": -1},
        PLAIN_STAGE: {"plain_stage": 1},
    },
    {**_NORMS, COMPONENT: {"component": 1}, STAGE: {"stage": 1}},
)
"""The terms of attention and of feed-forwards by name, as sums of counts. Where options make one of them follow from
others, the later one is left out."""

_MEANINGS: tuple[dict[str, str], dict[str, str]] = (
    {
        NORM: "the LayerNorm behind an attention, with its mean",
        NORM_WITHOUT_MEAN: "the LayerNorm behind an attention, without its mean",
        COMPONENT: "a head with queries and keys, besides their slices",
        PLAIN_COMPONENT: "a head without queries and keys",
        COMPONENT_SLICE: "a slice of a head's queries and keys",
        STAGE: "a stage of heads with queries and keys",
        PLAIN_STAGE: "a stage of heads without queries and keys",
    },
    {
        NORM: "the LayerNorm behind a feed-forward, with its mean",
        NORM_WITHOUT_MEAN: "the LayerNorm behind a feed-forward, without its mean",
        COMPONENT: "a slice of a feed-forward",
        STAGE: "a stage of slices of a feed-forward",
    },
)

_FEW = 4


class LatencyTerms:
    """The terms of one space; see the head of the file.

    Args:
        options: of the space. What is fixed there is part of what every network costs, and has no terms.
    """

    def __init__(self, options: ComponentsOptions) -> None:
        self._options = options

    @cached_property
    def _kept(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of attention's terms, and of the feed-forward's; none where it is fixed."""
        pairs = list(zip(self._options.sublayers, self._options.fixed, strict=True))
        attention, feed_forward = (
            _independent(dict.fromkeys(kind for kind, fixed in pairs[place::2] if fixed is None), terms)
            for place, terms in enumerate(_TERMS)
        )
        return attention, feed_forward

    @cached_property
    def _factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the counts are summed up with to those terms, ``[K, C]`` each."""
        attention, feed_forward = (_matrix(terms, kept) for terms, kept in zip(_TERMS, self._kept, strict=True))
        return attention, feed_forward

    @cached_property
    def meanings(self) -> dict[str, str]:
        """Each term in words, by its name such as ``attention.stage``, in order."""
        halves = zip(self._options.kinds, self._kept, _MEANINGS, strict=True)
        return {f"{kind.name}.{name}": meanings[name] for kind, kept, meanings in halves for name in kept}

    def counts(self, architecture: ComponentsArchitecture) -> list[float]:
        """The terms of an architecture, in the order of :attr:`meanings`."""
        found: list[float] = []
        for place, factors_KC in enumerate(self._factors):
            choices = architecture.sublayers[place::2]
            found += (factors_KC @ np.array([counts_of(choice) for choice in choices]).sum(0)).tolist()
        return found

    def cost(self, prices: Mapping[str, float], base: float) -> AdditiveCost:
        """What prices of terms, those of fixed halves among them, say of networks.

        Args:
            prices: milliseconds by the name of the term; those that are not named cost nothing.
            base: milliseconds that every network costs besides.
        """
        attention, feed_forward = (
            _prices_of_counts(prices, kind, terms) for kind, terms in zip(self._options.kinds, _TERMS, strict=True)
        )
        return AdditiveCost.alike("latency_ms", attention, feed_forward, self._options.shape.num_layers, base)

    def marginal(self, prices: Mapping[str, float]) -> list[MarginalLatency]:
        """What one more of everything costs, for people; ``c^h`` and ``c^v`` of the paper notes, section 3.3."""
        found = []
        attention, feed_forward = self._options.kinds
        if self._kept[0]:
            price = _of_kind(prices, attention)
            if COMPONENT in self._kept[0]:
                head = price[COMPONENT] + attention.query_key * price[COMPONENT_SLICE]
                found.append(_marginal("head", head, price[STAGE], attention))
            if PLAIN_COMPONENT in self._kept[0]:
                plain = price[PLAIN_COMPONENT], price[PLAIN_STAGE]
                found.append(_marginal("head without queries and keys", *plain, attention))
            found += _norms("attention", price) if NORM in self._kept[0] else []
        if self._kept[1]:
            price = _of_kind(prices, feed_forward)
            found.append(_marginal("feed-forward slice", price[COMPONENT], price[STAGE], feed_forward))
            found += _norms("feed-forward", price) if NORM in self._kept[1] else []
        return found

    def sizes(self) -> dict[str, int | str]:
        """What prices hang on, by name."""
        options, shape = self._options, self._options.shape
        return {
            "layers": shape.num_layers,
            "hidden size": shape.hidden_size,
            "heads": shape.num_heads,
            "intermediate size": shape.intermediate_size,
            "activation": shape.activation,
            "feed-forward slices": options.feed_forward_slices,
            "query-key slices": options.query_key_slices,
            "fixed attention": " | ".join(options.fixed_attention or ("none",)),
            "fixed feed-forward": " | ".join(options.fixed_feed_forward or ("none",)),
        }


def _independent(kinds: Collection[SublayerKind], terms: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Those terms that do not follow from the ones before them in all choices of some kinds; none without any."""
    if not kinds:
        return ()
    counts_SC = np.array([counts_of(choice) for kind in kinds for choice in _telling(kind)])
    kept: tuple[str, ...] = ()
    for name in terms:
        tried = (*kept, name)
        if np.linalg.matrix_rank(counts_SC @ _matrix(terms, tried).T) == len(tried):
            kept = tried
    return kept


def _telling(kind: SublayerKind) -> Iterator[SublayerChoice]:
    """A choice for each small number of components, stages and slices that may be kept, with the mean and without.

    Terms that differ at all differ in some of them.
    """
    for components in range(1, min(len(kind.numbers), _FEW) + 1):
        for stages in range(1, components + 1 if kind.vertical else 2):
            alone = tuple((number,) for number in kind.numbers[: stages - 1])
            rest = kind.numbers[stages - 1 : components]
            for slices in range(min(len(kind.slices), _FEW) + 1):
                for mean in (False, True)[: 1 + kind.whole.mean]:
                    yield SublayerChoice((*alone, rest), kind.slices[:slices], mean)


def _matrix(terms: Mapping[str, Mapping[str, int]], names: tuple[str, ...]) -> NDArray[np.float64]:
    """What counts are summed up with, ``[K, C]``."""
    rows = [[terms[name].get(count, 0) for count in COUNTS] for name in names]
    return np.array(rows, dtype=np.float64).reshape(len(names), len(COUNTS))


def _prices_of_counts(
    prices: Mapping[str, float], kind: SublayerKind, terms: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """What prices of a kind's terms come to for each of its counts."""
    values_K = np.array([prices.get(f"{kind.name}.{name}", 0.0) for name in terms])
    return dict(zip(COUNTS, (values_K @ _matrix(terms, tuple(terms))).tolist(), strict=True))


def _of_kind(prices: Mapping[str, float], kind: SublayerKind) -> dict[str, float]:
    """The prices of one kind by the names of all its terms; 0 where one has none."""
    names = dict.fromkeys(name for terms in _TERMS for name in terms)
    return {name: prices.get(f"{kind.name}.{name}", 0.0) for name in names}


def _marginal(name: str, beside: float, stage: float, kind: SublayerKind) -> MarginalLatency:
    return MarginalLatency(name, beside, beside + stage if kind.vertical else None)


def _norms(where: str, price: Mapping[str, float]) -> list[MarginalLatency]:
    """The LayerNorm behind a half of a layer, and its mean, which may well save time."""
    with_mean, without = price[NORM], price[NORM_WITHOUT_MEAN]
    return [
        MarginalLatency(f"LayerNorm behind {where}", with_mean, None),
        MarginalLatency(f"mean of the LayerNorm behind {where}", with_mean - without, None),
    ]
