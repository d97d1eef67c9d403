"""The space of Finding Fast Transformers: which components of a BERT are kept, and how they are put together again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.components import anchors, variation, views
from spaces.components.architecture import ATTENTION, FEED_FORWARD, ComponentsArchitecture, sublayer_text
from spaces.components.cost import cost_of, encoder_parameters
from spaces.components.decisions import DecisionBook
from spaces.components.options import KINDS, PRESETS, ComponentsOptions
from spaces.components.sublayers import SublayerChoice
from spaces.components.text import parse_architecture
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.sampled_space import CostName, MarginalLatency, SampledSpace
from spaces.space import Cost, Decision, FlopsRule

if TYPE_CHECKING:
    from spaces.components.additive_cost import AdditiveCost
    from spaces.components.distribution import GeneDistribution
    from spaces.components.latency import LatencyTerms
    from spaces.components.modeling import ComponentsModel
    from spaces.components.supernet import ComponentsSupernet


class ComponentsSpace(SampledSpace[ComponentsArchitecture]):
    """The space of Tsai et al. (2020) over a BERT-type teacher, as far as the paper tells it.

    Every layer keeps some of the teacher's heads, query-key slices and feed-forward slices, beside or behind each
    other, and the means of its LayerNorms or not; a half of a layer, or a layer, of which nothing is kept is absent.
    At least one component of the whole network is kept. With the option ``within`` no more is kept than some other
    architecture keeps, such as that of an already distilled student.

    Args:
        options: see :class:`~spaces.components.options.ComponentsOptions`; BERT-base's components by default.
    """

    name = "components"
    options_class = ComponentsOptions
    presets = PRESETS

    def __init__(self, options: ComponentsOptions | None = None) -> None:
        self.options = options or ComponentsOptions()
        self.shape = self.options.shape

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> ComponentsSpace:
        """Make the space from a recipe's options, for a teacher of ``shape`` (BERT-base's without one).

        Raises:
            SpaceError: an option is wrong, or does not fit the teacher.
        """
        return cls(ComponentsOptions.from_mapping(options, shape))

    def aspects(self) -> Sequence[str]:
        """The attention of all layers, and their feed-forwards, LayerNorms included."""
        return KINDS

    def narrowed(self, architecture: ComponentsArchitecture, keep: Sequence[str]) -> ComponentsSpace:
        """The architectures with the same ``attention`` or ``feed_forward`` in every layer."""
        unknown = [aspect for aspect in keep if aspect not in KINDS]
        if unknown or not keep:
            found = ", ".join(unknown) or "nothing"
            raise SpaceError(f"space {self.name}: cannot keep {found}, expected one of {', '.join(KINDS)}")
        self._require(architecture)
        kept: dict[str, Any] = {}
        if "attention" in keep:
            kept["fixed_attention"] = tuple(sublayer_text(ATTENTION, one.attention) for one in architecture.layers)
        if "feed_forward" in keep:
            halves = (layer.feed_forward for layer in architecture.layers)
            kept["fixed_feed_forward"] = tuple(sublayer_text(FEED_FORWARD, half) for half in halves)
        return ComponentsSpace(dataclasses.replace(self.options, **kept))

    # --- drawing and varying -------------------------------------------------------------------------------------

    @cached_property
    def _searched(self) -> list[int]:
        """The sublayers that are not fixed, by their number from 0."""
        return [index for index, fixed in enumerate(self.options.fixed) if fixed is None]

    def sample(self, rng: random.Random) -> ComponentsArchitecture:
        """Draw by the law that the option ``drawing`` names."""
        by_share = self.options.drawing == "shares"
        while True:
            sublayers, share = [], rng.random()
            for kind, fixed in zip(self.options.sublayers, self.options.fixed, strict=True):
                free = variation.draw(kind, share, rng) if by_share else kind.sample(rng)
                sublayers.append(free if fixed is None else fixed)
            drawn = ComponentsArchitecture.of_sublayers(sublayers)
            if not drawn.is_empty:
                return drawn

    def mutate(self, architecture: ComponentsArchitecture, rng: random.Random) -> ComponentsArchitecture:
        """Vary one half of one layer, by one gene or bit or as a whole."""
        if not self._searched:
            return architecture
        while True:
            index = rng.choice(self._searched)
            sublayers = list(architecture.sublayers)
            sublayers[index] = variation.neighbour(sublayers[index], self.options.sublayers[index], rng)
            changed = ComponentsArchitecture.of_sublayers(sublayers)
            if not changed.is_empty:
                return changed

    def crossover(
        self, first: ComponentsArchitecture, second: ComponentsArchitecture, rng: random.Random
    ) -> ComponentsArchitecture:
        """Each half of each layer from either parent; one of the parents, if nothing would be left."""
        pairs = zip(first.sublayers, second.sublayers, strict=True)
        child = ComponentsArchitecture.of_sublayers([rng.choice(pair) for pair in pairs])
        return rng.choice((first, second)) if child.is_empty else child

    # --- membership, text and counting ---------------------------------------------------------------------------

    def _misfit(self, architecture: ComponentsArchitecture) -> str | None:
        """What keeps an architecture out, in a few words; ``None`` if nothing does."""
        if len(architecture.layers) != self.options.shape.num_layers:
            found = "1 layer" if len(architecture.layers) == 1 else f"{len(architecture.layers)} layers"
            return f"it has {found}, expected {self.options.shape.num_layers}, as many as the teacher"
        columns = (architecture.sublayers, self.options.sublayers, self.options.fixed)
        for index, (choice, kind, fixed) in enumerate(zip(*columns, strict=True)):
            problem = kind.misfit(choice)
            if problem is None and fixed is not None and choice != fixed:
                letter = (ATTENTION, FEED_FORWARD)[index % 2]
                expected = f"expected {sublayer_text(letter, fixed)} (space.options.{self.options.fixing(index)})"
                problem = f"its {kind.name} is {sublayer_text(letter, choice)}, {expected}"
            if problem is not None:
                return f"layer {index // 2 + 1}: {problem}"
        return "nothing is left of any layer" if architecture.is_empty else None

    def contains(self, architecture: Architecture) -> bool:
        """Whether it has the teacher's layers and components, what is fixed, and something at all."""
        return isinstance(architecture, ComponentsArchitecture) and self._misfit(architecture) is None

    def _require(self, architecture: ComponentsArchitecture) -> ComponentsArchitecture:
        problem = self._misfit(architecture)
        if problem is not None:
            raise SpaceError(f"architecture '{architecture}' is not in the space: {problem}")
        return architecture

    def parse(self, text: str) -> ComponentsArchitecture:
        """Read a text form such as ``H1-12.Q1-2.M/F1-8.M|...``; see :mod:`spaces.components.architecture`."""
        return self._require(parse_architecture(text))

    def cardinality(self) -> int:
        """The product over all that is searched, less the network of which nothing is left."""
        everything = prod(self.options.sublayers[index].count for index in self._searched)
        return everything - all(fixed is None or fixed.is_absent for fixed in self.options.fixed)

    def counts(self) -> dict[str, Any]:
        """What each half of a layer can be, and in how many ways genes say so (the paper notes count those).

        With the option ``within`` layers differ, and there is a number for each of them.
        """
        pairs = list(zip(self.options.sublayers[::2], self.options.sublayers[1::2], strict=True))
        columns = {
            "choices_of_attention": [attention.count for attention, _ in pairs],
            "choices_of_feed_forward": [feed_forward.count for _, feed_forward in pairs],
            "choices_of_layer": [attention.count * feed_forward.count for attention, feed_forward in pairs],
            "gene_codes_of_layer": [attention.codes * feed_forward.codes for attention, feed_forward in pairs],
        }
        return {
            "layers": self.options.shape.num_layers,
            "searched_halves_of_layers": len(self._searched),
            **{name: column[0] if self.options.within is None else column for name, column in columns.items()},
            "encoder_parameters": {
                "least": encoder_parameters(self.smallest(), self.options),
                "most": encoder_parameters(anchors.whole(self.options), self.options),
            },
        }

    # --- views for samplers, predictors and dashboards -----------------------------------------------------------

    def encode(self, architecture: ComponentsArchitecture) -> NDArray[np.float64]:
        """Bits of all that is searched; see :func:`spaces.components.views.encode`."""
        return views.encode(architecture, self.options)

    def genes(self, architecture: ComponentsArchitecture) -> dict[str, Any]:
        """How many layers, components, stages and means are left, and what each layer is made of."""
        return views.genes(architecture, self.options)

    @cached_property
    def _book(self) -> DecisionBook:
        return DecisionBook(self.options)

    def decisions(self) -> Sequence[Decision]:
        """Which components are kept, their edges, query-key slices and means, half a layer after the other."""
        return self._book.decisions

    def from_decisions(self, chosen: Mapping[str, str]) -> ComponentsArchitecture:
        """The architecture of a complete set of choices."""
        return self._book.from_decisions(chosen)

    def to_decisions(self, architecture: ComponentsArchitecture) -> dict[str, str]:
        """The choices that lead to ``architecture``."""
        return self._book.to_decisions(architecture)

    # --- cost and modules ----------------------------------------------------------------------------------------

    def cost(
        self, architecture: ComponentsArchitecture, sequence_length: int = 128, flops_rule: FlopsRule = "encoder"
    ) -> Cost:
        """Parameters and FLOPs by arithmetic; see :mod:`spaces.components.cost`."""
        return cost_of(architecture, self.options, sequence_length, flops_rule)

    def smallest(self) -> ComponentsArchitecture:
        """One head without queries and keys, or one slice, as late as can be; where anything is fixed, that alone."""
        nothing = [SublayerChoice() if fixed is None else fixed for fixed in self.options.fixed]
        if any(not choice.is_absent for choice in nothing):
            return ComponentsArchitecture.of_sublayers(nothing)
        candidates = []
        for index in {index % len(KINDS): index for index in self._searched}.values():  # the last of each kind
            first = self.options.sublayers[index].numbers[0]
            alone = [*nothing[:index], SublayerChoice(((first,),)), *nothing[index + 1 :]]
            candidates.append(ComponentsArchitecture.of_sublayers(alone))
        return min(candidates, key=lambda one: encoder_parameters(one, self.options))

    def anchors(self) -> Sequence[ComponentsArchitecture]:
        """The largest and its regular thinnings, as far as they are members."""
        return [one for one in anchors.regular(self.options) if self.contains(one)]

    def aligned_states(self, architecture: ComponentsArchitecture, teacher_layers: int) -> Sequence[tuple[int, int]]:
        """The ends of the layers that are left."""
        from spaces.components.stand_alone import aligned_states

        return aligned_states(architecture, teacher_layers)

    def build(self, architecture: ComponentsArchitecture) -> ComponentsModel:
        """A stand-alone model with a random start."""
        from spaces.components.modeling import ComponentsModel
        from spaces.components.stand_alone import configuration_of

        return ComponentsModel(configuration_of(architecture, self.options))

    def supernet(self) -> ComponentsSupernet:
        """The network of all components, with a random start."""
        from spaces.components.supernet import ComponentsSupernet

        return ComponentsSupernet(self.options)

    # --- learning what to draw -----------------------------------------------------------------------------------

    def largest(self) -> ComponentsArchitecture:
        """The teacher's own form, but for what the options fix."""
        return anchors.whole(self.options)

    def distribution(self, certainty: float = 0.95) -> GeneDistribution:
        """Independent genes, each of which is nearly certain to be the largest architecture's."""
        from spaces.components.distribution import GeneDistribution

        return GeneDistribution(self.options, keep=certainty, vertical=1 - certainty)

    def expected_cost(self, name: CostName, sequence_length: int) -> AdditiveCost:
        """The costs of :meth:`cost` as sums over what sublayers are made of."""
        from spaces.components.additive_cost import flops_prices, parameter_prices

        return parameter_prices(self.options) if name == "parameters" else flops_prices(self.options, sequence_length)

    # --- latency, whose prices are fitted to whole networks ------------------------------------------------------

    @cached_property
    def _latency(self) -> LatencyTerms:
        from spaces.components.latency import LatencyTerms

        return LatencyTerms(self.options)

    def latency_terms(self) -> tuple[str, ...]:
        """LayerNorms, components and stages of either half, as far as they are searched."""
        return tuple(self._latency.meanings)

    def latency_meanings(self) -> Mapping[str, str]:
        """See :mod:`spaces.components.latency`."""
        return self._latency.meanings

    def latency_counts(self, architecture: ComponentsArchitecture) -> Sequence[float]:
        """Summed up over the layers."""
        return self._latency.counts(architecture)

    def latency_cost(self, prices: Mapping[str, float], base: float) -> AdditiveCost:
        """An additive cost called ``latency_ms``."""
        return self._latency.cost(prices, base)

    def marginal_latencies(self, prices: Mapping[str, float]) -> Sequence[MarginalLatency]:
        """Of a head, a head without queries and keys, a slice of a feed-forward, LayerNorms and their means."""
        return self._latency.marginal(prices)

    def latency_sizes(self) -> Mapping[str, int | str]:
        """The teacher's sizes, into how many slices it is cut, and what is fixed."""
        return self._latency.sizes()
