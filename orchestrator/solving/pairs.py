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

Columns = Sequence[NDArray[np.float64]]
Numbers = NDArray[np.int64]
Keep = Callable[[Columns, Columns, Numbers, Numbers], tuple[Numbers, Numbers]]
"""(columns of the left, of the right, left numbers, right numbers) -> the numbers of the pairs that may be of use."""

DIRECT_PAIRS = 1 << 16
"""Lists with at most so many pairs are compared outright."""

_FAN = 4
_CHUNK = 1 << 16
_LOCALITY_BITS = 10


def matching_pairs(left_DN: Columns, right_DN: Columns, keep: Keep) -> Iterator[tuple[Numbers, Numbers]]:
    """Every pair of points that ``keep`` keeps, chunk by chunk.

    Args:
        left_DN: coordinates of the left points, an array for each coordinate.
        right_DN: of the right points.
        keep: drops pairs whose sum of coordinates is of no use. It must never drop a pair of corners if it would keep a
            pair whose sum is as large or larger in every coordinate. It may become stricter during the walk.

    Yields:
        Numbers of left points, and of the right points they are paired with.
    """
    count_left, count_right = len(left_DN[0]), len(right_DN[0])
    if count_left * count_right <= DIRECT_PAIRS:
        left = np.repeat(np.arange(count_left), count_right)
        right = np.tile(np.arange(count_right), count_left)
        yield keep(left_DN, right_DN, left, right)
        return
    order_left, order_right = _close_together(left_DN), _close_together(right_DN)
    height = _height(max(count_left, count_right))
    tiles_left = _pyramid(left_DN, order_left, height)
    tiles_right = _pyramid(right_DN, order_right, height)
    stack = [(height, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))]
    while stack:
        level, left, right = stack.pop()
        if len(left) > _CHUNK:
            stack.append((level, left[_CHUNK:], right[_CHUNK:]))
            left, right = left[:_CHUNK], right[:_CHUNK]
        left, right = keep(tiles_left[level], tiles_right[level], left, right)
        if not len(left):
            continue
        if level == 0:
            yield order_left[left], order_right[right]
        else:
            stack.append((level - 1, *_children(tiles_left[level - 1], tiles_right[level - 1], left, right)))


def within(bounds_D: Sequence[float]) -> Keep:
    """Keeps pairs whose sums are at most the bounds; the bounds are read at every call, so they may fall meanwhile."""

    def keep(left_DN: Columns, right_DN: Columns, left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
        for left_N, right_N, bound in zip(left_DN, right_DN, bounds_D, strict=True):
            fits = left_N[left] + right_N[right] <= bound
            if not fits.all():
                left, right = left[fits], right[fits]
        return left, right

    return keep


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
    """The smallest coordinates of the tiles of each level, the points themselves first."""
    levels = [[column_N[order] for column_N in columns_DN]]
    for _ in range(height):
        below = levels[-1]
        firsts = np.arange(0, len(below[0]), _FAN)
        levels.append([np.minimum.reduceat(column_N, firsts) for column_N in below])
    return levels


def _children(left_DN: Columns, right_DN: Columns, left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    """All pairs of the tiles one level below."""
    steps_left = np.repeat(np.arange(_FAN), _FAN)
    steps_right = np.tile(np.arange(_FAN), _FAN)
    below_left = (_FAN * left[:, None] + steps_left).ravel()
    below_right = (_FAN * right[:, None] + steps_right).ravel()
    real = (below_left < len(left_DN[0])) & (below_right < len(right_DN[0]))
    return below_left[real], below_right[real]
