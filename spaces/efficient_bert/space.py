"""EfficientBERT's search space: expressions in place of feed-forwards, and how many of which width a block has."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.efficient_bert import anchors, variation, views
from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture, architecture_of
from spaces.efficient_bert.behaviour import behaviour_of
from spaces.efficient_bert.cost import block_parameters, cost_of, fixed_parameters, parameter_counts
from spaces.efficient_bert.counting import (
    ALL_KINDS,
    SERIAL_KINDS,
    TreeCounter,
    TreeKind,
    kinds_that_run,
    tree_counter,
)
from spaces.efficient_bert.decisions import DecisionBook
from spaces.efficient_bert.expressions import Expression
from spaces.efficient_bert.membership import in_window, misfit
from spaces.efficient_bert.options import PRESETS, EfficientBertOptions
from spaces.efficient_bert.proposals import NetworkProposals
from spaces.efficient_bert.rules import width_problem
from spaces.efficient_bert.windows import WindowedChoices
from spaces.encoder_shape import EncoderShape, check_gelu
from spaces.errors import SpaceError
from spaces.space import Cost, Decision, FlopsRule, SearchSpace

if TYPE_CHECKING:
    from spaces.efficient_bert.modeling import EfficientBertModel
    from spaces.efficient_bert.supernet import EfficientBertSupernet

Sizes = tuple[int, int]
ASPECTS = ("expressions", "sizes")


class EfficientBertSpace(SearchSpace[EfficientBertArchitecture]):
    """The space of Dong et al. (Findings of EMNLP 2021), with sizes and limits from its options.

    Architectures are drawn so that all are alike, within the window of parameters if there is one, unless the option
    ``mutation`` asks for the paper's own proposals.

    Args:
        options: see :class:`~spaces.efficient_bert.options.EfficientBertOptions`; the paper's by default.

    Raises:
        SpaceError: no architecture fits the options.
    """

    name = "efficient_bert"
    options_class = EfficientBertOptions
    presets = PRESETS

    def __init__(self, options: EfficientBertOptions | None = None) -> None:
        self.options = options or EfficientBertOptions()
        self.shape = self.options.shape
        self._check_blocks()
        self._check_window()

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> EfficientBertSpace:
        """Make the space from a recipe's options, for a teacher of ``shape`` (BERT-base's without one).

        Raises:
            SpaceError: an option is wrong, nothing fits them, or the space does not fit the teacher.
        """
        values = EfficientBertOptions.from_mapping(options, shape)
        if shape is not None:
            values.check_teacher()
        return cls(values)

    def aspects(self) -> Sequence[str]:
        """The expressions of all blocks, and their sizes (the linear ids)."""
        return ASPECTS

    def narrowed(self, architecture: EfficientBertArchitecture, keep: Sequence[str]) -> EfficientBertSpace:
        """The architectures with the same ``expressions`` or ``sizes``; proposals then start from what is not kept."""
        unknown = [aspect for aspect in keep if aspect not in ASPECTS]
        if unknown or not keep:
            found = ", ".join(unknown) or "nothing"
            raise SpaceError(f"space {self.name}: cannot keep {found}, expected one of {', '.join(ASPECTS)}")
        self._require(architecture)
        texts, linear_ids = tuple(map(str, architecture.expressions)), architecture.linear_ids
        kept: dict[str, Any] = {}
        kept["fixed_expressions" if "expressions" in keep else "base_expressions"] = texts
        kept["fixed_linear_ids" if "sizes" in keep else "base_linear_ids"] = linear_ids
        return EfficientBertSpace(dataclasses.replace(self.options, **kept))

    # --- what blocks can have ------------------------------------------------------------------------------------

    @cached_property
    def _counter(self) -> TreeCounter:
        return tree_counter(self.options.limits)

    def _kinds(self, divisor: int) -> tuple[TreeKind, ...]:
        return kinds_that_run(self.options.widths(divisor), self.options.parallel)

    def _expressions_of(self, block: int, divisor: int) -> int:
        """How many expressions a block, counted from 0, can have at a divisor."""
        fixed = self._fixed_expressions[block]
        if fixed is None:
            return self._counter.count(self._kinds(divisor))
        return int(width_problem(fixed, self.options.widths(divisor)) is None)

    @cached_property
    def _fixed_expressions(self) -> tuple[Expression | None, ...]:
        return tuple(self.options.fixed_expression(block) for block in range(self.options.layers))

    @cached_property
    def _block_sizes(self) -> tuple[Mapping[Sizes, tuple[int, int]], ...]:
        """For each block the sizes at which it has expressions: parameters, and how many expressions."""
        return tuple(
            {
                sizes: (block_parameters(sizes, self.options), count)
                for sizes in self.options.sizes_of_block(block)
                if (count := self._expressions_of(block, sizes[1]))
            }
            for block in range(self.options.layers)
        )

    @cached_property
    def _choices(self) -> WindowedChoices[Sizes]:
        return self._within_window(self._block_sizes)

    def _within_window(self, blocks: Sequence[Mapping[Sizes, tuple[int, int]]]) -> WindowedChoices[Sizes]:
        """All sizes of these blocks with which a network's parameters lie in the window."""
        window, fixed = self.options.parameter_window, fixed_parameters(self.options)
        low, high = (None, None) if window is None else (window[0] - fixed, window[1] - fixed)
        return WindowedChoices(blocks, low, high)

    def _check_blocks(self) -> None:
        for block, sizes in enumerate(self._block_sizes):
            if sizes:
                continue
            fixed = self._fixed_expressions[block]
            if fixed is None:
                limits = self.options.limits
                raise SpaceError(
                    f"space.options.max_nodes: no valid expression has a height of {limits.min_height} to "
                    f"{limits.max_height} and at most {limits.max_nodes} nodes; allow lower ones or more nodes"
                )
            divisors = [divisor for _, divisor in self.options.sizes_of_block(block)]
            problem = width_problem(fixed, self.options.widths(divisors[0]))
            raise SpaceError(f"space.options.fixed_expressions.{block}: found {str(fixed)!r}, {problem}")

    def _check_window(self) -> None:
        if self.options.parameter_window is None or self._choices.count:
            return
        least, most = (amount + fixed_parameters(self.options) for amount in self._choices.reach())
        raise SpaceError(
            f"space.options.parameter_window: found {list(self.options.parameter_window)}, in which no architecture "
            f"lies; they have from {least:,} to {most:,} parameters"
        )

    # --- drawing and varying -------------------------------------------------------------------------------------

    @cached_property
    def _proposals(self) -> NetworkProposals:
        liked = self.options.base_sizes or (None,) * self.options.layers
        weighted = [
            {sizes: (amount, 2 if sizes == base else 1) for sizes, (amount, _) in block.items()}
            for block, base in zip(self._block_sizes, liked, strict=True)
        ]
        return NetworkProposals(self.options, self._within_window(weighted))

    def sample(self, rng: random.Random) -> EfficientBertArchitecture:
        """Draw uniformly over all architectures, or by the paper's proposals if the option ``mutation`` says so."""
        if self.options.mutation == "proposal":
            return self._proposals.sample(rng)
        return self._sample_uniformly(rng)

    def _sample_uniformly(self, rng: random.Random) -> EfficientBertArchitecture:
        sizes = self._choices.sample(rng)
        expressions = [
            fixed or self._counter.sample(rng, self._kinds(divisor))
            for (_, divisor), fixed in zip(sizes, self._fixed_expressions, strict=True)
        ]
        return architecture_of(self.options.hidden_size, sizes, expressions)

    def mutate(self, architecture: EfficientBertArchitecture, rng: random.Random) -> EfficientBertArchitecture:
        """Change the sizes or the expression of one block; of two blocks' sizes where the window asks for it."""
        moves = [(aspect, block) for block in range(self.options.layers) for aspect in ASPECTS]
        rng.shuffle(moves)
        for aspect, block in moves:
            vary = self._vary_expression if aspect == "expressions" else self._vary_sizes
            changed = vary(architecture, block, rng)
            if changed is not None:
                return changed
        exchanged = self._exchange_sizes(architecture, rng)
        if exchanged is not None:
            return exchanged
        while self.cardinality() > 1:
            drawn = self._sample_uniformly(rng)
            if drawn != architecture:
                return drawn
        return architecture

    def _vary_expression(
        self, architecture: EfficientBertArchitecture, block: int, rng: random.Random
    ) -> EfficientBertArchitecture | None:
        if self._fixed_expressions[block] is not None:
            return None
        choice = architecture.blocks[block]
        if self.options.mutation == "proposal":
            proposed = self._proposals.vary(block, choice, rng)
            if proposed != choice.expression:
                return _with_block(architecture, block, dataclasses.replace(choice, expression=proposed))
        kinds, widths = self._kinds(choice.divisor), self.options.widths(choice.divisor)
        other = variation.neighbour(choice.expression, self.options.limits, widths, self._counter, kinds, rng)
        return (
            None if other is None else _with_block(architecture, block, dataclasses.replace(choice, expression=other))
        )

    def _vary_sizes(
        self, architecture: EfficientBertArchitecture, block: int, rng: random.Random
    ) -> EfficientBertArchitecture | None:
        others = self._sizes_for(architecture, block)
        rng.shuffle(others)
        for sizes in others:
            changed = _with_sizes(architecture, block, sizes)
            if in_window(changed, self.options):
                return changed
        return None

    def _exchange_sizes(
        self, architecture: EfficientBertArchitecture, rng: random.Random
    ) -> EfficientBertArchitecture | None:
        """Change the sizes of two blocks at once, which can leave the sum as it is."""
        blocks = range(self.options.layers)
        pairs = [(first, second) for first in blocks for second in blocks if first < second]
        rng.shuffle(pairs)
        for first, second in pairs:
            found = [
                changed
                for sizes in self._sizes_for(architecture, first)
                for more_sizes in self._sizes_for(architecture, second)
                if in_window(
                    changed := _with_sizes(_with_sizes(architecture, first, sizes), second, more_sizes), self.options
                )
            ]
            if found:
                return rng.choice(found)
        return None

    def _sizes_for(self, architecture: EfficientBertArchitecture, block: int) -> list[Sizes]:
        """Other sizes with which a block can have the expression it has."""
        choice = architecture.blocks[block]
        return [
            sizes
            for sizes in self._block_sizes[block]
            if sizes != choice.sizes and width_problem(choice.expression, self.options.widths(sizes[1])) is None
        ]

    def crossover(
        self, first: EfficientBertArchitecture, second: EfficientBertArchitecture, rng: random.Random
    ) -> EfficientBertArchitecture:
        """Sizes and expression of every block from either parent, all pairings within the window alike."""
        pairs = list(zip(first.blocks, second.blocks, strict=True))
        inherited = [
            {choice.sizes: (block_parameters(choice.sizes, self.options), 1) for choice in pair} for pair in pairs
        ]
        chosen = self._within_window(inherited).sample(rng)
        expressions = []
        for sizes, pair in zip(chosen, pairs, strict=True):
            widths = self.options.widths(sizes[1])
            running = [choice.expression for choice in pair if width_problem(choice.expression, widths) is None]
            expressions.append(rng.choice(running))
        return architecture_of(self.options.hidden_size, chosen, expressions)

    # --- membership, text and counting ---------------------------------------------------------------------------

    def contains(self, architecture: Architecture) -> bool:
        """Whether sizes and expressions are the options', every expression can run, and the window is kept."""
        return isinstance(architecture, EfficientBertArchitecture) and misfit(architecture, self.options) is None

    def _require(self, architecture: EfficientBertArchitecture) -> EfficientBertArchitecture:
        problem = misfit(architecture, self.options)
        if problem is not None:
            raise SpaceError(f"architecture '{architecture}' is not in the space: {problem}")
        return architecture

    def parse(self, text: str) -> EfficientBertArchitecture:
        """Read a text form of this space; see :class:`~spaces.space.SearchSpace`."""
        return self._require(EfficientBertArchitecture.parse(text))

    @classmethod
    def options_of_text(cls, text: str) -> Mapping[str, Any]:
        """Hidden size and number of blocks."""
        architecture = EfficientBertArchitecture.parse(text)
        return {"hidden_size": architecture.hidden_size, "layers": len(architecture.blocks)}

    def cardinality(self) -> int:
        """The sum over all sizes within the window of the products of how many expressions the blocks can have."""
        return self._choices.count

    def counts(self) -> dict[str, Any]:
        """Valid trees within the limits, by nodes and by height, and what each block can have.

        ``valid_trees`` are all that keep the rules for trees; ``serial_trees`` those of them with linear2 above
        linear1. Which of them a block can have depends on its inner width.
        """
        counter = self._counter
        return {
            "valid_trees": counter.count(ALL_KINDS),
            "serial_trees": counter.count(SERIAL_KINDS),
            "valid_trees_by_nodes": counter.by_nodes(ALL_KINDS),
            "serial_trees_by_nodes": counter.by_nodes(SERIAL_KINDS),
            "valid_trees_by_height": counter.by_height(ALL_KINDS),
            "serial_trees_by_height": counter.by_height(SERIAL_KINDS),
            "blocks": self.options.layers,
            "sizes_of_blocks": [len(sizes) for sizes in self._block_sizes],
            "choices_of_blocks": [sum(count for _, count in sizes.values()) for sizes in self._block_sizes],
            "cardinality_without_window": WindowedChoices(self._block_sizes).count,
            "parameters": dict(zip(("least", "most"), self._parameter_range(), strict=True)),
        }

    def _parameter_range(self) -> list[int]:
        """The fewest and the most parameters that networks have without the window."""
        return [amount + fixed_parameters(self.options) for amount in self._choices.reach()]

    # --- views for samplers, predictors and dashboards -----------------------------------------------------------

    def encode(self, architecture: EfficientBertArchitecture) -> NDArray[np.float64]:
        """Whole numbers, as in the paper's code; see :func:`spaces.efficient_bert.views.encode`."""
        return views.encode(architecture, self.options)

    def genes(self, architecture: EfficientBertArchitecture) -> dict[str, Any]:
        """Widths, how often each operator occurs, and each block's sizes and expression."""
        return views.genes(architecture, self.options)

    def behaviour(self, architecture: EfficientBertArchitecture) -> str:
        """The sizes of every block, and a hash of what its expression makes of fixed inputs and weights."""
        parts = (
            f"{choice.linear_id}:{behaviour_of(choice.expression, self.options.widths(choice.divisor))}"
            for choice in architecture.blocks
        )
        return "|".join((str(architecture.hidden_size), *parts))

    @cached_property
    def _book(self) -> DecisionBook:
        return DecisionBook(self.options, self._choices)

    def decisions(self) -> Sequence[Decision]:
        """Block by block its sizes, the form of its expression, and the operators in it."""
        return self._book.decisions

    def from_decisions(self, chosen: Mapping[str, str]) -> EfficientBertArchitecture:
        """The architecture of a complete set of choices."""
        return self._book.from_decisions(chosen)

    def to_decisions(self, architecture: EfficientBertArchitecture) -> dict[str, str]:
        """The choices that lead to ``architecture``."""
        return self._book.to_decisions(architecture)

    # --- cost and modules ----------------------------------------------------------------------------------------

    def cost(
        self, architecture: EfficientBertArchitecture, sequence_length: int = 128, flops_rule: FlopsRule = "encoder"
    ) -> Cost:
        """Parameters and FLOPs by arithmetic; see :mod:`spaces.efficient_bert.cost`."""
        return cost_of(architecture, self.options, sequence_length, flops_rule)

    def parameter_counts(self, architecture: EfficientBertArchitecture) -> dict[str, int]:
        """Weights with or without the linear map to the teacher's width, and with or without a pooler."""
        return parameter_counts(architecture, self.options)

    def smallest(self) -> EfficientBertArchitecture:
        """The sizes with the fewest parameters that the window allows, with the first expressions in order."""
        sizes = self._choices.smallest()
        expressions = [
            fixed or self._counter.at(0, self._kinds(divisor))
            for (_, divisor), fixed in zip(sizes, self._fixed_expressions, strict=True)
        ]
        return architecture_of(self.options.hidden_size, sizes, expressions)

    def anchors(self) -> Sequence[EfficientBertArchitecture]:
        """Regular architectures of every size, largest first, then the published one, as far as they are members."""
        found = anchors.published(self.options.hidden_size, self.options.layers)
        candidates = [*anchors.regular(self.options), *([] if found is None else [found])]
        return [one for one in candidates if self.contains(one)]

    def check_start(self, init: str) -> None:
        """Whether layers, heads and activation can be taken from the teacher, where ``init`` is ``teacher``."""
        if init == "teacher":
            self.options.check_teacher()
            check_gelu(self.options.shape.activation)

    def check_inheritance(self) -> None:
        """Make sure that the linear map to the teacher's width, which a student inherits, is counted."""
        if not self.options.projection:
            raise SpaceError(
                "space.options.projection: found false, but students that inherit from the supernet keep its linear "
                "map to the teacher's width; set projection: true, or distillation.initialisation: scratch"
            )

    def build(self, architecture: EfficientBertArchitecture) -> EfficientBertModel:
        """A stand-alone model with a random start."""
        from spaces.efficient_bert.modeling import EfficientBertModel
        from spaces.efficient_bert.stand_alone import configuration_of

        return EfficientBertModel(configuration_of(architecture, self.options))

    def supernet(self) -> EfficientBertSupernet:
        """The weight-sharing network of all architectures, with a random start."""
        from spaces.efficient_bert.supernet import EfficientBertSupernet

        return EfficientBertSupernet(self.options)


def _with_block(architecture: EfficientBertArchitecture, block: int, choice: BlockChoice) -> EfficientBertArchitecture:
    blocks = (*architecture.blocks[:block], choice, *architecture.blocks[block + 1 :])
    return EfficientBertArchitecture(architecture.hidden_size, blocks)


def _with_sizes(architecture: EfficientBertArchitecture, block: int, sizes: Sizes) -> EfficientBertArchitecture:
    return _with_block(architecture, block, BlockChoice(*sizes, architecture.blocks[block].expression))
