"""Which choices and partial networks can be passed over, and how the best networks are kept.

Choices of one width and equal costs form a *class*: any network with one of them can have any other in its place. So
networks of classes are searched, each class standing for its best choice, and only the best of them are taken apart.

Where a single network is wanted, whatever is beaten in loss and in every limited cost can go too.

Shape legend: N choices or labels, L limited costs, K networks, P places.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.pareto import non_dominated
from orchestrator.solving.chain import Measure
from orchestrator.solving.tables import Floats, Integers, NetworkTables, Place

_MOST_COMPARED = 30_000
"""Rows with four objectives or more that are still compared with each other."""


@dataclass(frozen=True)
class Classes:
    """The classes of one place.

    Attributes:
        best_N: the best row of each class, rising.
        members: the rows of each class, the best first.
    """

    best_N: Integers
    members: Sequence[Integers]


def classes_of(place: Place, rows: Integers, resources: Sequence[int], values_N: Floats) -> Classes:
    """Sort some rows of a place into classes.

    Args:
        place: the place.
        rows: numbers of its rows, rising.
        resources: the limited costs; others do not tell classes apart.
        values_N: of all rows: what is minimised.
    """
    states_N = np.searchsorted(place.starts, rows, side="right")
    keys = [place.cost_RN[number, rows] for number in resources]
    order = np.lexsort((place.tie_N[rows], values_N[rows], *keys, states_N))
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = np.any([key[order][1:] != key[order][:-1] for key in (states_N, *keys)], axis=0)
    groups = np.split(rows[order], np.flatnonzero(begins)[1:])
    best = np.array([group[0] for group in groups], dtype=np.int64)
    rising = np.argsort(best)
    return Classes(best[rising], [groups[number] for number in rising])


def unbeaten(states_N: Integers, loss_N: Floats, ties_PN: Integers, cost_LN: Floats) -> Integers:
    """Numbers of the choices (or labels) that no other one of the same state equals or beats in everything.

    Args:
        states_N: who may stand in whose place.
        loss_N: their losses.
        ties_PN: the order of their texts, the first place first; tells equal losses apart.
        cost_LN: their limited costs.
    """
    if len(cost_LN) > 2 and len(loss_N) > _MOST_COMPARED:
        return np.arange(len(loss_N))
    place_N = np.empty(len(loss_N))
    place_N[np.lexsort((*ties_PN[::-1], loss_N))] = np.arange(len(loss_N))
    kept = []
    for state in np.unique(states_N):
        members = np.flatnonzero(states_N == state)
        kept.append(members[non_dominated(np.stack([place_N[members], *cost_LN[:, members]], axis=1))])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)


class Best:
    """The best networks met so far.

    Args:
        tables: whose rows the networks consist of.
        top: how many are kept.
        bound: nothing worse is wanted.
    """

    def __init__(self, tables: NetworkTables, top: int, bound: float = np.inf) -> None:
        self._tables, self._top, self._bound = tables, top, bound
        self.rows_KP: Integers = np.zeros((0, len(tables.places)), dtype=np.int64)
        self.loss_K: Floats = np.zeros(0)

    @property
    def target(self) -> float:
        """The loss of the worst network that is kept; the bound while there are not enough."""
        return min(self._bound, float(self.loss_K[-1])) if len(self.loss_K) >= self._top else self._bound

    def take(self, loss_K: NDArray[np.float64], rows_KP: Integers) -> None:
        """Consider more networks."""
        if len(loss_K) > 4 * self._top:  # a first cut, before texts are compared
            worst = np.partition(loss_K, self._top - 1)[self._top - 1]
            loss_K, rows_KP = loss_K[loss_K <= worst], rows_KP[loss_K <= worst]
        loss_K = np.concatenate([self.loss_K, loss_K])
        rows_KP = np.concatenate([self.rows_KP, rows_KP])
        order = np.lexsort((*self._tables.ties(rows_KP).T[::-1], loss_K))
        loss_K, rows_KP = loss_K[order], rows_KP[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (rows_KP[1:] != rows_KP[:-1]).any(axis=1)
        self.loss_K, self.rows_KP = loss_K[new][: self._top], rows_KP[new][: self._top]


def take_apart(
    tables: NetworkTables, objective: Measure, best: Best, classes_P: Sequence[Classes], top: int
) -> tuple[Floats, Integers]:
    """The best networks that the best networks of classes stand for.

    Args:
        tables: the tables.
        objective: what is minimised.
        best: networks of classes, as rows of their best choices.
        classes_P: the classes of each place.
        top: how many networks are wanted.

    Returns:
        Their losses [K] and rows [K, P], the lowest loss first.
    """
    numbers = [np.searchsorted(classes.best_N, best.rows_KP[:, place]) for place, classes in enumerate(classes_P)]
    own_K = sum(values_N[best.rows_KP[:, place]] for place, values_N in enumerate(objective.values_PN))
    links = (best.loss_K - own_K).tolist()
    heap: list[tuple[float, tuple[int, ...], int, tuple[int, ...], int, list[int]]] = []

    def push(network: int, steps: tuple[int, ...], last: int) -> None:
        rows = []
        for place, step in enumerate(steps):
            members = classes_P[place].members[numbers[place][network]]
            if step >= len(members):
                return
            rows.append(int(members[step]))
        loss = links[network] + sum(float(v[row]) for v, row in zip(objective.values_PN, rows, strict=True))
        ties = tuple(int(one.tie_N[row]) for one, row in zip(tables.places, rows, strict=True))
        heapq.heappush(heap, (loss, ties, network, steps, last, rows))

    for network in range(len(best.rows_KP)):
        push(network, (0,) * len(classes_P), 0)
    losses: list[float] = []
    found: list[list[int]] = []
    while heap and len(found) < top:
        loss, _, network, steps, last, rows = heapq.heappop(heap)
        losses.append(loss)
        found.append(rows)
        for place in range(last, len(steps)):
            push(network, (*steps[:place], steps[place] + 1, *steps[place + 1 :]), place)
    return np.array(losses), np.array(found, dtype=np.int64).reshape(len(found), len(classes_P))
