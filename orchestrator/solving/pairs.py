"""Which pairs of two lists of points fit together, without looking at every pair.

Points that lie close are put into tiles, tiles into larger tiles. What a pair of tiles holds is at least the sum of
their smallest coordinates; where even that is hopeless, so are all their pairs. The walk goes from pairs of large tiles
to pairs of points, a chunk at a time, so that its memory does not follow the number of pairs.

Shape legend: D coordinates, N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import RunError

Columns = Sequence[NDArray[np.float64]]
Numbers = NDArray[np.int64]
Keep = Callable[[Columns], NDArray[np.bool_]]
"""Sums of the coordinates of pairs -> which pairs may be of use."""

DIRECT_PAIRS = 1 << 16
"""Lists with at most so many pairs are compared outright."""

_FAN = 4
_CHUNK = 1 << 12
_LOCALITY_BITS = 10


def matching_pairs(left_DN: Columns, right_DN: Columns, keep: Keep) -> Iterator[tuple[Numbers, Numbers]]:
    """Every pair of points that ``keep`` keeps, chunk by chunk.

    Args:
        left_DN: coordinates of the left points, an array for each coordinate.
        right_DN: of the right points.
        keep: drops pairs whose sum of coordinates is of no use. It must never drop a pair of corners if it would keep a
            pair whose sum is as large or larger in every coordinate. It may become stricter during the walk. Where the
            first sum is NaN, there is no pair: it must drop it.

    Yields:
        Numbers of left points, and of the right points they are paired with.
    """
    count_left, count_right = len(left_DN[0]), len(right_DN[0])
    if not count_left or not count_right:
        return
    if count_left * count_right <= DIRECT_PAIRS:
        left, right = np.divmod(np.flatnonzero(keep(_sums(left_DN, right_DN))), count_right)
        yield left, right
        return
    order_left, order_right = _close_together(left_DN), _close_together(right_DN)
    height = _height(max(count_left, count_right))
    tiles_left = _pyramid(left_DN, order_left, height)
    tiles_right = _pyramid(right_DN, order_right, height)
    stack = [(height - 1, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))]
    while stack:
        level, left, right = stack.pop()
        if len(left) > _CHUNK:
            stack.append((level, left[_CHUNK:], right[_CHUNK:]))
            left, right = left[:_CHUNK], right[:_CHUNK]
        # Whole rows of children are fetched and added to each other: much less to move than pair by pair.
        sums = [
            (some[left][:, :, None] + others[right][:, None, :]).reshape(-1)
            for some, others in zip(tiles_left[level], tiles_right[level], strict=True)
        ]
        kept = np.flatnonzero(keep(sums))
        if not len(kept):
            continue
        pair, child = np.divmod(kept, _FAN * _FAN)
        left, right = _FAN * left[pair] + child // _FAN, _FAN * right[pair] + child % _FAN
        if level == 0:
            yield order_left[left], order_right[right]
        else:
            stack.append((level - 1, left, right))


class Counter:
    """Counts the pairs that were looked at, and gives up after too many.

    Args:
        most: so many are looked at.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0

    def add(self, pairs: int) -> None:
        """More pairs.

        Raises:
            RunError: there are too many.
        """
        self.count += pairs
        if self.count > self.most:
            raise RunError(
                f"more than {self.most:,} pairs of partial networks (PAIR_LIMIT) would have to be looked at: too many "
                f"choices have (almost) equal losses at equal prices; ask for fewer networks (--top 1), add or tighten "
                f"a limit, or leave out choices"
            )


def within(bounds_D: Sequence[float], counter: Counter | None = None) -> Keep:
    """Keeps pairs whose sums are at most the bounds; the bounds are read at every call, so they may fall meanwhile."""

    def keep(sums: Columns) -> NDArray[np.bool_]:
        if counter is not None:
            counter.add(len(sums[0]))
        fits = sums[0] <= bounds_D[0]
        for sum_N, bound in zip(sums[1:], bounds_D[1:], strict=True):
            fits &= sum_N <= bound
        return fits

    return keep


def _sums(left_DN: Columns, right_DN: Columns) -> Columns:
    return [(left_N[:, None] + right_N[None, :]).reshape(-1) for left_N, right_N in zip(left_DN, right_DN, strict=True)]


def _height(count: int) -> int:
    height = 0
    while _FAN**height < count:
        height += 1
    return height


def _close_together(columns_DN: Columns) -> Numbers:
    """An order in which neighbours are close in all coordinates: that of their ranks' interleaved bits (Morton)."""
    count = len(columns_DN[0])
    bits = min(_LOCALITY_BITS, 60 // len(columns_DN))
    code_N = np.zeros(count, dtype=np.int64)
    ranks = []
    for column_N in columns_DN:
        rank_N = np.empty(count, dtype=np.int64)
        rank_N[np.argsort(column_N, kind="stable")] = np.arange(count)
        ranks.append((rank_N << bits) // count)
    for bit in reversed(range(bits)):
        for rank_N in ranks:
            code_N = (code_N << 1) | ((rank_N >> bit) & 1)
    return np.argsort(code_N, kind="stable")


def _pyramid(columns_DN: Columns, order: Numbers, height: int) -> list[list[NDArray[np.float64]]]:
    """The tiles of each level below the top, a row [FAN] for those of one larger tile; the points themselves first.

    A tile's coordinates are the smallest of its points'. Rows are filled up with tiles whose first coordinate is NaN.
    """
    columns = [column_N[order] for column_N in columns_DN]
    levels = []
    for _ in range(height):
        rows = [_rows(column_N, np.nan if number == 0 else column_N[-1]) for number, column_N in enumerate(columns)]
        levels.append(rows)
        columns = [np.fmin.reduce(row, axis=1) for row in rows]
    return levels


def _rows(column_N: NDArray[np.float64], filling: float) -> NDArray[np.float64]:
    missing = -len(column_N) % _FAN
    return np.append(column_N, np.full(missing, filling)).reshape(-1, _FAN)
