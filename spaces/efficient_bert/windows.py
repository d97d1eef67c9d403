"""Choosing one thing for each block so that amounts add up to something within a window: counting, drawing, ordering.

Dynamic programming from the last block to the first: how many ways there are to spend each amount on the blocks from
one on. The number of parameters of a network hangs on two sums over its blocks, of stacked × inner width and of stacked
feed-forwards; both are sums over blocks, and so is the amount of parameters they make, which alone is kept.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

ChoiceT = TypeVar("ChoiceT", bound=Hashable)
Options = Mapping[ChoiceT, tuple[int, int]]
"""What one block can have, with the amount it takes and its weight: how many architectures of the block have it."""


class WindowedChoices(Generic[ChoiceT]):
    """All ways to choose for every block, with the sum of amounts within a window.

    Args:
        blocks: what each block can have; weights are at least 1.
        low: least sum, ``None`` for any.
        high: greatest sum, ``None`` for any.
    """

    def __init__(self, blocks: Sequence[Options[ChoiceT]], low: int | None = None, high: int | None = None) -> None:
        self._blocks = tuple(blocks)
        self._low, self._high = low, high
        self._known: dict[tuple[int, int], tuple[ChoiceT, ...]] = {}

    @cached_property
    def count(self) -> int:
        """The sum over all ways of the products of weights."""
        return self._completions(0, 0)

    def reach(self) -> tuple[int, int]:
        """The smallest and the greatest sum there is, whatever the window."""
        return (
            sum(min(amount for amount, _ in block.values()) for block in self._blocks),
            sum(max(amount for amount, _ in block.values()) for block in self._blocks),
        )

    def sample(self, rng: random.Random) -> tuple[ChoiceT, ...]:
        """Draw a way with a probability proportional to its product of weights.

        Raises:
            ValueError: there is none.
        """
        chosen: list[ChoiceT] = []
        spent = 0
        for number, block in enumerate(self._blocks):
            likely = list(accumulate(self._weight(number, spent, choice) for choice in block))
            if not likely[-1]:
                raise ValueError("no choices add up to a sum within the window")
            choice = list(block)[bisect_right(likely, rng.randrange(likely[-1]))]
            chosen.append(choice)
            spent += block[choice][0]
        return tuple(chosen)

    def smallest(self) -> tuple[ChoiceT, ...]:
        """A way with the smallest sum within the window.

        Raises:
            ValueError: there is none.
        """
        least = self._sums[0].least(self._low, self._high)
        exactly = WindowedChoices(self._blocks, least, least)
        chosen: list[ChoiceT] = []
        for number in range(len(self._blocks)):
            spent = sum(self.amount(before, choice) for before, choice in enumerate(chosen))
            chosen.append(exactly.possible(number, spent)[0])
        return tuple(chosen)

    def possible(self, number: int, spent: int) -> tuple[ChoiceT, ...]:
        """What the block ``number`` (from 0) can have so that the rest can be completed, after ``spent``."""
        key = (number, spent)
        if key not in self._known:
            self._known[key] = tuple(choice for choice in self._blocks[number] if self._weight(number, spent, choice))
        return self._known[key]

    def amount(self, number: int, choice: ChoiceT) -> int:
        """What a choice takes at a block."""
        return self._blocks[number][choice][0]

    def possible_sets(self, number: int) -> tuple[tuple[ChoiceT, ...], ...]:
        """Every set that :meth:`possible` can give at a block, whatever the blocks before it have spent."""
        spent = {0}
        for block in self._blocks[:number]:
            spent = {before + amount for before in spent for amount, _ in block.values()}
        left_open = self._left_open(number, np.array(sorted(spent), dtype=np.int64))
        rows = [row for row in np.unique(left_open, axis=0)[::-1] if row.any()]
        return tuple(
            tuple(choice for choice, is_open in zip(self._blocks[number], row, strict=True) if is_open) for row in rows
        )

    def _left_open(self, number: int, spent: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For all that may have been spent [S], whether each choice [C] can be completed."""
        after = np.array(sorted(self._sums[number + 1].ways), dtype=np.int64)
        amounts = np.array([amount for amount, _ in self._blocks[number].values()], dtype=np.int64)
        so_far = spent[:, None] + amounts[None, :]
        low = -np.inf if self._low is None else self._low
        high = np.inf if self._high is None else self._high
        first = np.searchsorted(after, low - so_far, side="left")
        last = np.searchsorted(after, high - so_far, side="right")
        return last > first

    def _weight(self, number: int, spent: int, choice: ChoiceT) -> int:
        amount, weight = self._blocks[number][choice]
        return weight * self._completions(number + 1, spent + amount)

    def _completions(self, number: int, spent: int) -> int:
        """In how many ways the blocks from ``number`` on bring what was spent into the window."""
        if self._low is None and self._high is None:
            return self._all_ways[number]
        low = None if self._low is None else self._low - spent
        high = None if self._high is None else self._high - spent
        return self._sums[number].between(low, high)

    @cached_property
    def _all_ways(self) -> list[int]:
        """In how many ways each block and those behind it can be chosen, whatever they amount to."""
        weights = [sum(weight for _, weight in block.values()) for block in reversed(self._blocks)]
        return list(accumulate([1, *weights], int.__mul__))[::-1]

    @cached_property
    def _sums(self) -> list[_Sums]:
        """For every block, in how many ways the blocks from there on spend each amount."""
        tables = [_Sums({0: 1})]
        for block in reversed(self._blocks):
            ways: dict[int, int] = {}
            for after, count in tables[-1].ways.items():
                for amount, weight in block.values():
                    ways[after + amount] = ways.get(after + amount, 0) + count * weight
            tables.append(_Sums(ways))
        return tables[::-1]


class _Sums:
    """How many ways there are to each amount, summed up so that windows are quick."""

    def __init__(self, ways: Mapping[int, int]) -> None:
        self.ways = ways
        self._amounts = sorted(ways)
        self._up_to = [0, *accumulate(ways[amount] for amount in self._amounts)]

    def between(self, low: int | None, high: int | None) -> int:
        first, last = self._places(low, high)
        return self._up_to[last] - self._up_to[first] if last > first else 0

    def least(self, low: int | None, high: int | None) -> int:
        first, last = self._places(low, high)
        if last <= first:
            raise ValueError("no choices add up to a sum within the window")
        return self._amounts[first]

    def _places(self, low: int | None, high: int | None) -> tuple[int, int]:
        first = 0 if low is None else bisect_left(self._amounts, low)
        last = len(self._amounts) if high is None else bisect_right(self._amounts, high)
        return first, last
