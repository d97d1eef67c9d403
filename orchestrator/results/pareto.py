"""Pareto fronts: which candidates no other candidate beats, and how fronts are ranked and spread.

A row *dominates* another when it is at least as good in every objective and better in one. Rows with equal values do
not dominate each other, so all copies of a point of the front belong to the front. A row with a NaN (a measurement that
failed) is in no front and dominates nobody; infinities are ordinary, very good or very bad values.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Directions = bool | Sequence[bool]

_CHUNK = 1024


def non_dominated(values: ArrayLike, minimise: Directions = True) -> NDArray[np.bool_]:
    """Which rows form the Pareto front.

    One to three objectives take O(n log n) (about 0.1 s for 100,000 rows), more take O(n × size of the front).

    Args:
        values: float [rows, objectives].
        minimise: one flag for all objectives, or one for each: whether smaller is better.

    Returns:
        bool [rows]: True for each row of the front; copies of a point are all kept, rows with a NaN never are.

    Raises:
        ValueError: ``values`` is not two-dimensional with at least one objective, or ``minimise`` has another length.
    """
    costs, complete = _as_costs(values, minimise)
    mask = np.zeros(len(costs), dtype=np.bool_)
    points, point_of_row = _distinct_points(costs[complete])
    mask[complete] = _front_of_distinct(points)[point_of_row]
    return mask


def non_dominated_ranks(values: ArrayLike, minimise: Directions = True) -> NDArray[np.int64]:
    """The number of the front each row belongs to: 0 for the Pareto front, 1 for the front once that is taken away, ...

    Two objectives take O(n log n), more take one pass over the remaining rows for each front.

    Args:
        values: float [rows, objectives].
        minimise: one flag for all objectives, or one for each: whether smaller is better.

    Returns:
        int64 [rows]: rows with a NaN share one rank behind all others.

    Raises:
        ValueError: as in :func:`non_dominated`.
    """
    costs, complete = _as_costs(values, minimise)
    points, point_of_row = _distinct_points(costs[complete])
    point_ranks = _ranks_of_two(points) if costs.shape[1] == 2 else _ranks_by_peeling(points)
    ranks = np.full(len(costs), point_ranks.max(initial=-1) + 1, dtype=np.int64)
    ranks[complete] = point_ranks[point_of_row]
    return ranks


def dominance_numbers(values: ArrayLike, minimise: Directions = True) -> NDArray[np.int64]:
    """By how many rows each row is dominated: 0 for the Pareto front (LaMOO, Zhao et al. 2022, section 3).

    Takes O(n²) comparisons (about 0.1 s for 3,000 rows).

    Args:
        values: float [rows, objectives].
        minimise: one flag for all objectives, or one for each: whether smaller is better.

    Returns:
        int64 [rows]: rows with a NaN count as dominated by all rows without one.

    Raises:
        ValueError: as in :func:`non_dominated`.
    """
    costs, complete = _as_costs(values, minimise)
    known = costs[complete]
    counts = np.empty(len(known), dtype=np.int64)
    for start in range(0, len(known), _CHUNK):
        asked = known[start : start + _CHUNK]
        no_worse = np.ones((len(asked), len(known)), dtype=np.bool_)
        equal = no_worse.copy()
        for own, others in zip(asked.T, known.T, strict=True):
            no_worse &= others[None, :] <= own[:, None]
            equal &= others[None, :] == own[:, None]
        counts[start : start + _CHUNK] = (no_worse & ~equal).sum(axis=1)
    numbers = np.full(len(costs), len(known), dtype=np.int64)
    numbers[complete] = counts
    return numbers


def crowding_distance(values: ArrayLike, ranks: ArrayLike | None = None) -> NDArray[np.float64]:
    """How lonely each row is within its front (NSGA-II, Deb et al. 2002): the larger, the more it adds to the spread.

    For each objective the distance between a row's two neighbours, divided by the front's extent in that objective,
    summed over the objectives. The ends of a front are infinitely lonely.

    Args:
        values: float [rows, objectives]; directions do not matter.
        ranks: int [rows], the front of each row as :func:`non_dominated_ranks` gives it; None: all are one front.

    Returns:
        float64 [rows]: rows with a NaN or an infinity have distance 0.

    Raises:
        ValueError: the shapes do not fit.
    """
    costs, _ = _as_costs(values, True)
    fronts = np.zeros(len(costs), dtype=np.int64) if ranks is None else np.asarray(ranks, dtype=np.int64)
    if fronts.shape != (len(costs),):
        raise ValueError(f"ranks has shape {fronts.shape}, expected one rank for each of the {len(costs)} rows")
    distances = np.zeros(len(costs), dtype=np.float64)
    finite = np.isfinite(costs).all(axis=1)
    for front in np.unique(fronts[finite]):
        members = np.flatnonzero(finite & (fronts == front))
        distances[members] = _crowding_of_front(costs[members])
    return distances


def _as_costs(values: ArrayLike, minimise: Directions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as costs (smaller is better) [rows, objectives], and which rows are free of NaN [rows]."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"values has shape {array.shape}, expected [rows, objectives] with at least one objective")
    objectives = array.shape[1]
    flags = [minimise] * objectives if isinstance(minimise, bool) else [bool(flag) for flag in minimise]
    if len(flags) != objectives:
        raise ValueError(f"minimise has {len(flags)} flags, expected one for each of the {objectives} objectives")
    costs = array * np.where(flags, 1.0, -1.0)
    complete: NDArray[np.bool_] = np.logical_not(np.isnan(costs).any(axis=1))
    return costs, complete


def _distinct_points(costs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The distinct rows in lexicographic order, and for each row the index of its distinct point."""
    if len(costs) == 0:
        return costs, np.zeros(0, dtype=np.intp)
    order = np.lexsort(costs.T[::-1])
    ordered = costs[order]
    is_new = np.ones(len(costs), dtype=np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    point_of_row = np.empty(len(costs), dtype=np.intp)
    point_of_row[order] = np.cumsum(is_new) - 1
    return ordered[is_new], point_of_row


def _front_of_distinct(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The front of distinct points in lexicographic order: only an earlier point can dominate a later one."""
    objectives = points.shape[1]
    if objectives == 1:
        return np.arange(len(points)) == 0
    if objectives == 2:
        return _front_of_two(points)
    return _front_of_three(points) if objectives == 3 else _front_of_many(points)


def _front_of_two(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The second objective must fall below everything seen so far."""
    mask = np.ones(len(points), dtype=np.bool_)
    mask[1:] = points[1:, 1] < np.minimum.accumulate(points[:, 1])[:-1]
    return mask


def _front_of_three(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Kung's sweep: along the first objective, the staircase of the other two seen so far decides about the next point.

    Points come in chunks, each compared with the staircase at once, because growing it point by point would be slow
    where nearly all points are on the front.
    """
    mask = np.zeros(len(points), dtype=np.bool_)
    stairs = np.empty((0, 2))  # the second objective rises, the third falls
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK, 1:]
        # The stair before a point has the smallest third objective among all whose second is no larger.
        stair = np.searchsorted(stairs[:, 0], chunk[:, 0], side="right") - 1
        beaten = stair >= 0
        beaten[beaten] = stairs[stair[beaten], 1] <= chunk[beaten, 1]
        rest = np.flatnonzero(~beaten)
        front = rest[_sweep(chunk[rest])]
        mask[start + front] = True
        stairs = np.concatenate([stairs, chunk[front]])
        stairs = stairs[np.lexsort(stairs.T[::-1])]
        stairs = stairs[_front_of_two(stairs)]
    return mask


def _sweep(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points [points, 2] no earlier one equals or beats in both objectives."""
    mask = np.zeros(len(points), dtype=np.bool_)
    first: list[float] = []  # rising
    second: list[float] = []  # falling
    for index, (position, height) in enumerate(points.tolist()):
        stair = bisect_right(first, position)
        if stair and second[stair - 1] <= height:
            continue
        mask[index] = True
        begin = bisect_left(first, position)
        end = begin
        while end < len(second) and second[end] >= height:
            end += 1
        first[begin:end] = [position]
        second[begin:end] = [height]
    return mask


def _front_of_many(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The first survivor is of the front (nobody earlier beat it) and removes what it dominates; and so on."""
    mask = np.zeros(len(points), dtype=np.bool_)
    alive = np.arange(len(points))
    while len(alive):
        best = points[alive[0]]
        mask[alive[0]] = True
        alive = alive[(points[alive] < best).any(axis=1)]
    return mask


def _ranks_of_two(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of two objectives in one sweep.

    Along the first objective, the newest point of a front has the front's smallest second objective, and these rise
    from front to front; so the first front whose newest point does not dominate is found by bisection.
    """
    ranks = np.zeros(len(points), dtype=np.int64)
    newest: list[float] = []
    for index, second in enumerate(points[:, 1].tolist()):
        rank = bisect_right(newest, second)
        newest[rank : rank + 1] = [second]
        ranks[index] = rank
    return ranks


def _ranks_by_peeling(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of any number of objectives: take the front away until nothing is left."""
    ranks = np.zeros(len(points), dtype=np.int64)
    if points.shape[1] == 1:
        return np.arange(len(points), dtype=np.int64)
    remaining = np.arange(len(points))
    rank = 0
    while len(remaining):
        front = _front_of_distinct(points[remaining])
        ranks[remaining[front]] = rank
        remaining = remaining[~front]
        rank += 1
    return ranks


def _crowding_of_front(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crowding distance of the rows [members, objectives] of one front."""
    distances = np.zeros(len(costs), dtype=np.float64)
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        distances[order[[0, -1]]] = np.inf
        extent = ordered[-1] - ordered[0]
        if extent > 0:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / extent
    return distances
