"""Hypervolume: how much of the objectives' box a set of candidates dominates, the usual single number of a front.

Larger is better. Rows that do not beat the reference point in every objective add nothing, nor does a row with a NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.results.pareto import Directions, non_dominated


def hypervolume(values: ArrayLike, reference: ArrayLike, minimise: Directions = True) -> float:
    """The volume between a set of points and a reference point.

    Exact. One objective takes a minimum, two a sort; each further one slices the front along itself, so that n points
    of a front with d objectives take about n^(d-1) log n.

    Args:
        values: float [rows, objectives].
        reference: float [objectives], the point that is as bad as anything counts.
        minimise: one flag for all objectives, or one for each: whether smaller is better.

    Raises:
        ValueError: the shapes do not fit.
    """
    costs, corner = _as_costs(values, reference, minimise)
    costs = costs[(costs < corner).all(axis=1)]
    return _volume(costs[non_dominated(costs)], corner) if len(costs) else 0.0


def hypervolume_curve(values: ArrayLike, reference: ArrayLike, minimise: Directions = True) -> NDArray[np.float64]:
    """The hypervolume of the first row, of the first two, and so on: how a search came along.

    Args:
        values: float [rows, objectives], in the order in which they were found.
        reference: as in :func:`hypervolume`.
        minimise: as in :func:`hypervolume`.

    Returns:
        float64 [rows], never falling.

    Raises:
        ValueError: the shapes do not fit.
    """
    costs, corner = _as_costs(values, reference, minimise)
    curve = np.zeros(len(costs))
    front, volume = costs[:0], 0.0
    for index, cost in enumerate(costs):
        if (cost < corner).all() and not (front <= cost).all(axis=1).any():
            front = np.vstack([front[~(cost <= front).all(axis=1)], cost])
            volume = _volume(front, corner)
        curve[index] = volume
    return curve


def _as_costs(
    values: ArrayLike, reference: ArrayLike, minimise: Directions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and reference point with every objective turned into one that is minimised."""
    rows = np.asarray(values, dtype=np.float64)
    corner = np.asarray(reference, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0 or corner.shape != rows.shape[1:]:
        raise ValueError(f"values have the shape {rows.shape} and the reference {corner.shape}, expected (n, d), (d,)")
    signs = np.where(np.broadcast_to(np.asarray(minimise, dtype=np.bool_), corner.shape), 1.0, -1.0)
    return rows * signs, corner * signs


def _volume(front: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """The volume that mutually non-dominated rows, all better than ``corner``, dominate."""
    if front.shape[1] == 1:
        return float(corner[0] - front[:, 0].min())
    if front.shape[1] == 2:
        return _area(front, corner)
    # From slice to slice along the last objective, the rows below it dominate the same volume of the other objectives.
    order = np.argsort(front[:, -1], kind="stable")
    heights = np.append(front[order, -1], corner[-1])
    volume = 0.0
    for count, thickness in enumerate(np.diff(heights), start=1):
        if thickness > 0:
            below = front[order[:count], :-1]
            volume += float(thickness) * _volume(below[non_dominated(below)], corner[:-1])
    return volume


def _area(front: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Of a front in two objectives: the steps of its staircase, from left to right."""
    steps = front[np.lexsort((front[:, 1], front[:, 0]))]
    ceilings = np.append(corner[1], np.minimum.accumulate(steps[:, 1])[:-1])
    return float(((corner[0] - steps[:, 0]) * np.maximum(ceilings - steps[:, 1], 0.0)).sum())
