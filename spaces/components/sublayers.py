"""What one sublayer of a Transformer can be made of: which of its components it keeps, and in which stages.

Components are an attention's heads or a feed-forward's slices, numbered from 0 in the teacher's order. Those of a stage
stand beside each other, on one input; stages follow each other. A *gene* says the same component by component, as the
operator Psi does (:mod:`spaces.components.composition`): dropped, or kept with an edge of 0 (the next one that is kept
stands beside it) or of 1 (it stands behind). What the last edge is makes no difference, because a sublayer settles what
waits; it counts as 1 here, so that equal functions are equal values.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise

from spaces.errors import SpaceError

Stages = tuple[tuple[int, ...], ...]
"""The components of each stage, ascending; stages of one sublayer are ascending too."""


class Gene(IntEnum):
    """What becomes of one component."""

    DROPPED = 0
    HORIZONTAL = 1
    VERTICAL = 2


@dataclass(frozen=True)
class SublayerChoice:
    """What one sublayer is made of. Without components it is absent, and the layer goes on with its input.

    Attributes:
        stages: its components; none for an absent sublayer.
        query_key: which slices of the head size queries and keys have, of all heads alike; of attention only. Without
            any, attention is the mean of all valid tokens.
        mean: whether the LayerNorm behind it subtracts the mean.

    Raises:
        SpaceError: numbers are negative or do not ascend, or a stage is empty.
    """

    stages: Stages = ()
    query_key: tuple[int, ...] = ()
    mean: bool = False

    def __post_init__(self) -> None:
        for name, numbers in (("components", self.components), ("query-key slices", self.query_key)):
            if any(number < 0 for number in numbers) or any(later <= before for before, later in pairwise(numbers)):
                raise SpaceError(f"{name}: found {list(numbers)}, expected different numbers from 0 on, ascending")
        if not all(self.stages):
            raise SpaceError(f"stages: found {list(self.stages)}, expected one component or more in each")
        if not self.stages:
            object.__setattr__(self, "query_key", ())
            object.__setattr__(self, "mean", False)

    @property
    def components(self) -> tuple[int, ...]:
        """The components that are kept, ascending."""
        return tuple(component for stage in self.stages for component in stage)

    @property
    def is_absent(self) -> bool:
        """Whether nothing is left of the sublayer."""
        return not self.stages

    def genes(self, count: int) -> list[Gene]:
        """The gene of each of ``count`` components; that of the last one that is kept is vertical."""
        found = [Gene.DROPPED] * count
        for stage in self.stages:
            for component in stage:
                found[component] = Gene.HORIZONTAL
            found[stage[-1]] = Gene.VERTICAL
        return found


def stages_of(genes: Iterable[int]) -> Stages:
    """The stages that genes make, whatever the last edge is."""
    stages: list[tuple[int, ...]] = []
    waiting: tuple[int, ...] = ()
    for component, gene in enumerate(genes):
        if gene != Gene.DROPPED:
            waiting = (*waiting, component)
        if gene == Gene.VERTICAL:
            stages.append(waiting)
            waiting = ()
    return tuple(stages) if not waiting else (*stages, waiting)


@dataclass(frozen=True)
class SublayerKind:
    """Attention or feed-forward, and what there is to choose in one.

    Attributes:
        name: ``attention`` or ``feed_forward``.
        component: what its components are called.
        components: how many there are.
        query_key: slices of queries and keys; 0 where there are none.
        vertical: whether components may stand behind each other.
        within: what is kept at most, where that is not everything; its stages are no limit.
    """

    name: str
    component: str
    components: int
    query_key: int
    vertical: bool
    within: SublayerChoice | None = None

    def limited(self, within: SublayerChoice) -> SublayerKind:
        """The same kind, of which no more is kept than ``within`` keeps."""
        return replace(self, within=within)

    @cached_property
    def whole(self) -> SublayerChoice:
        """The largest choice: the teacher's own form, one stage of all components, or what it lies within."""
        if self.within is not None:
            return self.within
        return SublayerChoice((tuple(range(self.components)),), tuple(range(self.query_key)), True)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The components that may be kept, ascending."""
        return self.whole.components

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """The query-key slices that may be kept, ascending."""
        return self.whole.query_key

    @cached_property
    def bits(self) -> int:
        """How many bits a choice has besides its components: one for each slice, and one for the mean if it may be."""
        return len(self.slices) + self.whole.mean

    def spelled(self, genes: Sequence[int], bits: Sequence[bool | int]) -> SublayerChoice:
        """The choice that genes and bits make.

        Args:
            genes: of :attr:`numbers`, one each.
            bits: whether each of :attr:`slices` is kept, then whether the mean is, where it may be.
        """
        numbers, kept = self.numbers, [*map(bool, bits), False]
        stages = tuple(tuple(numbers[place] for place in stage) for stage in stages_of(genes))
        slices = tuple(number for number, is_kept in zip(self.slices, kept, strict=False) if is_kept)
        return SublayerChoice(stages, slices, kept[len(self.slices)])

    def genes_of(self, choice: SublayerChoice) -> list[Gene]:
        """The genes of :attr:`numbers` in a choice; see :meth:`SublayerChoice.genes`."""
        genes = choice.genes(self.components)
        return [genes[number] for number in self.numbers]

    def bits_of(self, choice: SublayerChoice) -> list[bool]:
        """The bits of a choice, as :meth:`spelled` takes them."""
        return [*(number in choice.query_key for number in self.slices), *([choice.mean] if self.whole.mean else [])]

    @property
    def genes(self) -> tuple[Gene, ...]:
        """What a component can be."""
        return tuple(Gene) if self.vertical else (Gene.DROPPED, Gene.HORIZONTAL)

    @property
    def patterns(self) -> int:
        """How many ways there are to keep one or more components: of all genes, the last one kept counted once.

        That is the sum of g^k over the place k of the last one kept, with g genes.
        """
        genes = len(self.genes)
        return (genes ** len(self.numbers) - 1) // (genes - 1)

    @property
    def count(self) -> int:
        """The exact number of choices, the absent sublayer among them."""
        return 1 + self.patterns * 2**self.bits

    @property
    def codes(self) -> int:
        """The combinations of genes and bits, of which some are the same choice (paper notes, section 3.4)."""
        return int(len(self.genes) ** len(self.numbers) * 2**self.bits)

    def at(self, place: int) -> SublayerChoice:
        """The choice at a place of one order, from 0 (the absent sublayer) to :attr:`count` - 1."""
        if place == 0:
            return SublayerChoice()
        place, mean = divmod(place - 1, 1 + self.whole.mean)
        place, slices = divmod(place, 2 ** len(self.slices))
        genes, base = [], len(self.genes)
        last = 0  # the place of the last component that is kept; base**last patterns have it
        while place >= base**last:
            place -= base**last
            last += 1
        for _ in range(last):
            place, gene = divmod(place, base)
            genes.append(gene)
        return self.spelled([*genes, Gene.HORIZONTAL], [*(slices >> bit & 1 for bit in range(len(self.slices))), mean])

    def sample(self, rng: random.Random) -> SublayerChoice:
        """Draw uniformly over all choices."""
        return self.at(rng.randrange(self.count))

    def misfit(self, choice: SublayerChoice) -> str | None:
        """What keeps a choice out, in a few words; ``None`` if nothing does."""
        checks: Sequence[tuple[str, tuple[int, ...], int]] = (
            (self.component, choice.components, self.components),
            ("query-key slice", choice.query_key, self.query_key),
        )
        for name, numbers, count in checks:
            if numbers and numbers[-1] >= count:
                expected = f"expected {'one' if count == 1 else f'1 to {count}'}" if count else "expected none"
                return f"{name} {numbers[-1] + 1} of {self.name}, {expected}"
        beyond = self._beyond(choice)
        if beyond is not None:
            return f"{beyond} of {self.name}, which space.options.within drops"
        if len(choice.stages) > 1 and not self.vertical:
            return (
                f"{self.component} {choice.stages[1][0] + 1} of {self.name} stands behind others, expected all of them "
                f"beside each other, since space.options.vertical leaves {self.name} out"
            )
        return None

    def _beyond(self, choice: SublayerChoice) -> str | None:
        """What a choice keeps of which nothing may be kept; ``None`` if there is no such thing."""
        limits = ((self.component, choice.components, self.numbers), ("query-key slice", choice.query_key, self.slices))
        for name, numbers, limit in limits:
            for number in numbers:
                if number not in limit:
                    return f"{name} {number + 1}"
        return "the mean" if choice.mean and not self.whole.mean else None
