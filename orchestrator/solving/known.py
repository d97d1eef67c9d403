"""What is known of a front while pairs of partial networks are looked at, and how beaten ones are sorted out.

A map over the plane of two objectives says what the best third one is; whatever it is sure to beat is never looked at
closely. Points that the map leaves are sorted out now and then.

Shape legend: N points (pairs), D objectives, and behind them costs that are only limited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import RunError
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.pairs import Columns
from orchestrator.solving.tables import Floats, Integers

_MOST_BITS = 12
"""Bits of a coordinate of the map, where many pairs are sorted with it."""

_ALL_BITS = 24
"""Bits of all coordinates of the map together, at most."""

_COLLECTED = 4_000_000
"""Pairs that are gathered before the beaten ones are left out."""

_LEARNED = 1_600_000
"""New pairs after which the map learns."""

_SWEPT = 4096
"""Points that are compared with all earlier ones at once."""

_MOST_COMPARED = 3_000
"""Points of four objectives or more that are still compared with each other."""

_SCOUTS = 200
"""Labels of each side whose pairs are looked at first, so that the map knows good networks from the beginning."""


class Gathered:
    """Pairs that may be on the front; those that turn out to be beaten are left out now and then.

    Args:
        known: learns from the pairs.
        largest: more than so many that nothing beats are given up.
    """

    def __init__(self, known: KnownNetworks, largest: int) -> None:
        self._known, self._largest = known, largest
        self._parts: list[tuple[Floats, Integers, Integers]] = []
        self._new: list[Floats] = []
        self._count, self._enough = 0, _COLLECTED

    def add(self, values_DN: Floats, left: Integers, right: Integers) -> None:
        """More pairs: their values, and the numbers of what they are made of."""
        self._parts.append((values_DN, left, right))
        self._new.append(values_DN)
        self._count += len(left)
        if sum(part.shape[1] for part in self._new) > _LEARNED:
            self._learn()
        if self._count > self._enough:
            self._learn()
            self._select(self._known.keeps)
            if self._count > self._enough // 2:
                self._select(self._unbeaten)
                # Sorting them out takes longer than finding them, so it waits until there are several times as many.
                self._enough = max(_COLLECTED, 3 * self._count)
            if self._count > self._largest:
                raise too_large(self._largest)

    def front(self) -> tuple[Floats, Integers, Integers]:
        """Values [D, N] and numbers of the pairs that nothing beats."""
        if not self._parts:
            nothing = np.zeros(0, dtype=np.int64)
            return np.zeros((self._known.columns, 0)), nothing, nothing
        self._learn()
        self._select(self._known.keeps)
        self._select(self._unbeaten)
        if self._count > self._largest:
            raise too_large(self._largest)
        return self._parts[0]

    def _unbeaten(self, values_DN: Floats) -> NDArray[np.bool_]:
        return unbeaten_points(values_DN[: self._known.compared])

    def _learn(self) -> None:
        if self._new:
            self._known.learn(np.concatenate(self._new, axis=1))
            self._new = []

    def _select(self, choose: Callable[[Floats], NDArray[np.bool_]]) -> None:
        values_DN, left, right = (np.concatenate(column, axis=-1) for column in zip(*self._parts, strict=True))
        chosen = np.flatnonzero(choose(values_DN))
        self._parts = [(values_DN[:, chosen], left[chosen], right[chosen])]
        self._count = len(chosen)


def unbeaten_points(values_DN: Floats) -> NDArray[np.bool_]:
    """Which points no other point beats, where most of many are beaten; equal points are all kept.

    Points are looked at in chunks along the last objective: of the earlier chunks, only the best of the other two
    objectives counts. What they leave is little, and sorted out point by point.

    Of many points with four objectives or more, some that are beaten may stay.
    """
    count = values_DN.shape[1]
    mask = np.zeros(count, dtype=bool)
    if len(values_DN) > 3:
        return _unbeaten_in_many(values_DN)
    if len(values_DN) < 3 or count < 4 * _SWEPT:
        return non_dominated(values_DN.T)
    order = np.argsort(values_DN[2])
    first_N, second_N, third_N = values_DN[:, order]
    stairs, heights = np.empty(0), np.empty(0)  # of the second objective, rising, and of the first one, falling
    rest = []
    start = 0
    while start < count:
        # Points that are equal in the last objective stay together, so that equal points never leave each other out.
        end = int(np.searchsorted(third_N, third_N[min(start + _SWEPT, count) - 1], side="right"))
        begin, start = start, end
        stair_N = np.searchsorted(stairs, second_N[begin:end], side="right") - 1
        left = np.flatnonzero((stair_N < 0) | (np.append(heights, np.inf)[stair_N] > first_N[begin:end])) + begin
        if not len(left):
            continue
        rest.append(left)
        all_stairs, all_heights = np.append(stairs, second_N[left]), np.append(heights, first_N[left])
        rising = np.lexsort((all_heights, all_stairs))
        stairs, heights = all_stairs[rising], all_heights[rising]
        falls = np.ones(len(stairs), dtype=bool)
        falls[1:] = heights[1:] < np.minimum.accumulate(heights)[:-1]
        stairs, heights = stairs[falls], heights[falls]
    few = order[np.concatenate(rest)]
    mask[few] = non_dominated(values_DN[:, few].T)
    return mask


def _unbeaten_in_many(values_DN: Floats) -> NDArray[np.bool_]:
    """Points of which no other one is equal in all objectives but the first, and better there; and more, if few."""
    order = np.lexsort((values_DN[0], *values_DN[1:]))
    ordered_DN = values_DN[:, order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (ordered_DN[1:, 1:] != ordered_DN[1:, :-1]).any(axis=0)
    least_N = ordered_DN[0, np.flatnonzero(begins)][np.cumsum(begins) - 1]
    kept = order[ordered_DN[0] == least_N]
    if len(kept) <= _MOST_COMPARED:
        kept = kept[non_dominated(values_DN[:, kept].T)]
    mask = np.zeros(len(order), dtype=bool)
    mask[kept] = True
    return mask


class KnownNetworks:
    """What is known to be possible: the least first objective for each cell of the others' plane.

    Cells have a size of a power of two, so that no rounding can mistake a cell. Fewer than three objectives leave the
    plane with a single row, or cell.

    Args:
        groups: values [D, N] of the left and of the right parts that will be paired.
        compared: objectives; the columns behind them are only limited.
        limits_D: the largest value of each column; infinite where there is none.
    """

    def __init__(self, groups: Sequence[tuple[Floats, Floats]], compared: int, limits_D: Floats) -> None:
        self.columns, self.compared = len(limits_D), compared
        self._limits_D = limits_D
        least = [min(a[d].min() + b[d].min() for a, b in groups) for d in range(1, compared)]
        most = [max(a[d].max() + b[d].max() for a, b in groups) for d in range(1, compared)]
        most = [max(low, min(high, limit)) for low, high, limit in zip(least, most, limits_D[1:], strict=False)]
        pairs = sum(a.shape[1] * b.shape[1] for a, b in groups)
        bits = min(_MOST_BITS, _ALL_BITS // max(1, compared - 1), pairs.bit_length() // 3 + 2)
        sizes = [2.0 ** np.ceil(np.log2(max(high - low, 1.0) / 2**bits)) for low, high in zip(least, most, strict=True)]
        limited = self.columns - compared
        self._least, self._sizes = [0.0, *least, *[0.0] * limited], [1.0, *sizes, *[1.0] * limited]
        extents = [int((high - low) / size) + 2 for low, high, size in zip(least, most, sizes, strict=True)]
        self._cells = np.full(extents, np.inf)
        self._position_limits = [
            (limit - low) / size for limit, low, size in zip(limits_D.tolist(), self._least, self._sizes, strict=True)
        ]
        self.asked = 0  # how many pairs were looked up
        for a, b in groups:
            some, others = a[:, _spread(a[0])], b[:, _spread(b[0])]
            self._enter((some[:, :, None] + others[:, None, :]).reshape(len(a), -1))
        self._spread()

    def learn(self, values_DN: Floats) -> None:
        """Add networks (or parts) that are known to be possible.

        Args:
            values_DN: with all columns, or the objectives alone where the limits are kept for sure.
        """
        self._enter(values_DN)
        self._spread()

    def positions(self, left_DN: Floats, right_DN: Floats) -> tuple[Columns, Columns]:
        """The coordinates of parts, such that sums of them can be looked up."""
        left = [(a - low) / size for a, low, size in zip(left_DN, self._least, self._sizes, strict=True)]
        return left, [b / size for b, size in zip(right_DN, self._sizes, strict=True)]

    def hopeful(self, sums: Columns) -> NDArray[np.bool_]:
        """Which networks (or parts), at their positions, keep the limits, and nothing known is sure to beat."""
        self.asked += len(sums[0])
        fits: NDArray[np.bool_] | None = None
        for sum_N, limit in zip(sums, self._position_limits, strict=True):
            if np.isfinite(limit):
                fits = sum_N <= limit if fits is None else fits & (sum_N <= limit)
        if fits is not None:
            found = np.zeros(len(sums[0]), dtype=bool)
            chosen = np.flatnonzero(fits)
            found[chosen] = self._unbeaten([sum_N[chosen] for sum_N in sums])
            return found
        return self._unbeaten(sums)

    def _unbeaten(self, sums: Columns) -> NDArray[np.bool_]:
        if self.compared == 1:
            known: Any = self._cells
        else:
            cell_N = sums[1].astype(np.int64)
            for sum_N, extent in zip(sums[2 : self.compared], self._cells.shape[1:], strict=True):
                cell_N *= extent
                cell_N += sum_N.astype(np.int64)
            known = self._cells.reshape(-1)[cell_N]
        found: NDArray[np.bool_] = sums[0] <= known
        return found

    def keeps(self, values_DN: Floats) -> NDArray[np.bool_]:
        """The same for values."""
        return self.hopeful(self.positions(values_DN, np.zeros((len(values_DN), 1)))[0])

    def _enter(self, values_DN: Floats) -> None:
        limited = np.flatnonzero(np.isfinite(self._limits_D))
        if len(limited):
            limited = limited[limited < len(values_DN)]
            values_DN = values_DN[:, (values_DN[limited] <= self._limits_D[limited, None]).all(axis=0)]
        if self.compared == 1:
            self._cells = np.minimum(self._cells, values_DN[0].min(initial=np.inf))
            return
        columns = zip(values_DN[1 : self.compared], self._least[1:], self._sizes[1:], strict=False)
        cells = [np.ceil((value_N - low) / size).astype(np.int64) for value_N, low, size in columns]
        # Nothing known may be cheaper than all that is paired.
        cells = [np.maximum(cell_N, 0) for cell_N in cells]
        within = np.all([cell_N < extent for cell_N, extent in zip(cells, self._cells.shape, strict=True)], axis=0)
        np.minimum.at(self._cells, tuple(cell_N[within] for cell_N in cells), values_DN[0, within])

    def _spread(self) -> None:
        for axis in range(self._cells.ndim):
            np.minimum.accumulate(self._cells, axis=axis, out=self._cells)


def _spread(values_N: Floats) -> Integers:
    """Some labels, evenly over the order of a value."""
    order = np.argsort(values_N, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, _SCOUTS).astype(np.int64))]


def too_large(largest: int) -> RunError:
    """More points than anybody can use."""
    return RunError(
        f"the front has more than {largest:,} points (or partial networks that may lead to it); it would be of little "
        f"use whole: ask for fewer objectives, or for single budgets"
    )


def too_long(most_pairs: int) -> RunError:
    """More pairs than can be looked at in bearable time."""
    return RunError(
        f"the front would take looking at more than {most_pairs:,} pairs of partial networks (PAIR_LIMIT): losses "
        f"follow the costs so closely that almost everything is on the front; ask for fewer objectives, or for single "
        f"budgets"
    )
