"""The whole Pareto front over all networks, exactly.

Half networks are joined place by place, and of each width only those are kept that no other one beats; then the halves
are joined. Pairs of halves (and of tiles of halves, see :mod:`pairs`) that some network known already beats are never
looked at: a map over the plane of two objectives says what the best third one is.

Shape legend: N labels, D objectives, K networks, P places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import RunError, UserError
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.chain import Measure, cost_measure, loss_measure, measure_of, place_of
from orchestrator.solving.labels import Labels, one_place
from orchestrator.solving.pairs import Columns, Numbers, matching_pairs
from orchestrator.solving.tables import Floats, Integers, Network, NetworkTables, Place

FRONT_LIMIT = 2_000_000
"""The largest number of points, of the front or of a front of partial networks, that is followed."""

OBJECTIVES = ("loss", "parameters", "latency_ms")

_MOST_BITS = 10
"""Bits of a coordinate of the map, where many pairs are sorted with it."""

_COLLECTED = 400_000
"""Pairs that are gathered before the beaten ones are left out."""

_SCOUTS = 200
"""Labels of each side whose pairs are looked at first, so that the map knows good networks from the beginning."""


@dataclass(frozen=True)
class Front:
    """All networks that no other network beats; where several have equal values, the first in the order of texts.

    Attributes:
        tables: what the networks are made of.
        objectives: what is minimised.
        values_KD: one row a network, in the units people use; sorted by the objectives from the last to the first.
        rows_KP: the networks, as rows of the tables' places.
        combinations: how many networks there are.
    """

    tables: NetworkTables
    objectives: tuple[str, ...]
    values_KD: Floats
    rows_KP: Integers
    combinations: int

    def __len__(self) -> int:
        return len(self.rows_KP)

    def network(self, number: int) -> Network:
        """One network of the front."""
        return self.tables.network(self.rows_KP[number])


def front(tables: NetworkTables, objectives: Sequence[str] = OBJECTIVES, largest: int = FRONT_LIMIT) -> Front:
    """All networks that no other one equals or beats in every objective.

    Args:
        tables: the choices.
        objectives: one to three of ``loss`` and the tables' resources, all minimised.
        largest: points after which it is given up.

    Raises:
        UserError: an objective is unknown, or named twice, or there are none or more than three.
        RunError: the front, or that of partial networks, has more than ``largest`` points.
    """
    _check(tables, objectives)
    measures = [
        loss_measure(tables) if name == "loss" else cost_measure(tables, tables.resource(name)) for name in objectives
    ]
    rows_PN = [_unbeaten_rows(place, measures, number) for number, place in enumerate(tables.places)]
    places = [place_of(place, rows) for place, rows in zip(tables.places, rows_PN, strict=True)]
    joiner = _Joiner([measure_of(measure, rows_PN) for measure in measures], places, largest)
    halves = (len(places) + 1) // 2
    left = joiner.place(0)
    for number in range(1, halves):
        left = joiner.join(left, joiner.place(number), outer="right")
    right = joiner.place(len(places) - 1)
    for number in range(len(places) - 2, halves - 1, -1):
        right = joiner.join(joiner.place(number), right, outer="left")
    left, right = joiner.across(left, ending=True), joiner.across(right, ending=False)
    whole = joiner.finish(joiner.join(left, right, outer="none"))
    rows_KP = np.stack([rows[column] for rows, column in zip(rows_PN, whole.rows_PN, strict=True)], axis=1)
    units = np.array(
        [tables.loss_unit if name == "loss" else tables.in_units(tables.resource(name), 1.0) for name in objectives]
    )
    return Front(tables, tuple(objectives), whole.values_DN.T * units, rows_KP, tables.combinations)


def _check(tables: NetworkTables, objectives: Sequence[str]) -> None:
    if not 1 <= len(objectives) <= 3 or len(set(objectives)) < len(objectives):
        raise UserError(
            f"objectives of a front: found {', '.join(objectives) or 'none'}, expected one to three different"
        )
    for name in objectives:
        if name != "loss":
            tables.resource(name)


def _unbeaten_rows(place: Place, measures: Sequence[Measure], number: int) -> Integers:
    """The rows of a place that no other row of the same width equals or beats."""
    values_DN = np.stack([measure.values_PN[number] for measure in measures])
    return _front_by_state(place.states(), values_DN, place.tie_N[None])


def _front_by_state(states_N: Integers, values_DN: Floats, ties_PN: Integers) -> Integers:
    """Numbers of the labels that no label of their state equals or beats; of equal ones the first by texts."""
    kept = []
    for state in np.unique(states_N):
        members = np.flatnonzero(states_N == state)
        members = members[non_dominated(values_DN[:, members].T)]
        order = np.lexsort((*ties_PN[::-1, members], *values_DN[:, members]))
        ordered_DN = values_DN[:, members[order]]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (ordered_DN[:, 1:] != ordered_DN[:, :-1]).any(axis=0)
        kept.append(members[order[first]])
    return np.sort(np.concatenate(kept))


class _Joiner:
    """Joins parts and keeps of each width what is not beaten."""

    def __init__(self, measures: Sequence[Measure], places: Sequence[Place], largest: int) -> None:
        self._measures, self._places, self._largest = measures, places, largest

    def place(self, number: int) -> Labels:
        """One place's choices."""
        return one_place(self._measures, self._places, number)

    def join(self, left: Labels, right: Labels, outer: str) -> Labels:
        """The joined parts that are not beaten.

        Args:
            left: parts.
            right: parts that begin right behind.
            outer: where the joined parts will be joined again, so that only parts of equal width there compete:
                at the ``left``, at the ``right``, or ``none``.
        """
        links_DWW = np.stack([measure.links[left.end] for measure in self._measures])
        lefts = [np.flatnonzero(left.last_N == state) for state in range(links_DWW.shape[1])]
        rights = [np.flatnonzero(right.first_N == state) for state in range(links_DWW.shape[2])]
        outer_N = {"left": left.first_N, "right": right.last_N}.get(outer)
        joined = []
        for state in [None] if outer_N is None else np.unique(outer_N).tolist():
            groups = []
            for (i, lefts_i), (j, rights_j) in ((a, b) for a in enumerate(lefts) for b in enumerate(rights)):
                some, others = lefts_i, rights_j
                if outer == "left":
                    some = some[left.first_N[some] == state]
                if outer == "right":
                    others = others[right.last_N[others] == state]
                if len(some) and len(others):
                    groups.append((some, others, links_DWW[:, i, j]))
            joined.append(self._join_groups(left, right, groups))
            if sum(map(len, joined)) > self._largest:
                raise _too_large(self._largest)
        return _together(joined)

    def _join_groups(self, left: Labels, right: Labels, groups: Sequence[tuple[Integers, Integers, Floats]]) -> Labels:
        """The front of several sets of pairs that compete with each other."""
        known = _Map([(left.values_DN[:, a] + link[:, None], right.values_DN[:, b]) for a, b, link in groups])
        values, ones, others = [np.zeros((len(self._measures), 0))], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        gathered = 0

        def reduce() -> None:
            values[:], ones[:], others[:] = (
                [np.concatenate(values, axis=1)],
                [np.concatenate(ones)],
                [np.concatenate(others)],
            )
            # The map tells most of them in a moment, once it knows them; the others are sorted out exactly.
            known.learn(values[0])
            best = known.hopeful(values[0])
            best = best[non_dominated(values[0][:, best].T)]
            values[0], ones[0], others[0] = values[0][:, best], ones[0][best], others[0][best]
            if len(ones[0]) > self._largest:
                raise _too_large(self._largest)

        for some, rest, link_D in groups:
            first_DN, second_DN = left.values_DN[:, some] + link_D[:, None], right.values_DN[:, rest]
            for one, other in matching_pairs(list(first_DN), list(second_DN), known.keep):
                values.append(first_DN[:, one] + second_DN[:, other])
                ones.append(some[one])
                others.append(rest[other])
                gathered += len(one)
                if gathered > _COLLECTED:
                    reduce()
                    gathered = 0
        reduce()
        one, other = ones[0], others[0]
        joined = Labels(
            left.begin,
            right.end,
            values[0],
            left.first_N[one],
            right.last_N[other],
            np.concatenate([left.rows_PN[:, one], right.rows_PN[:, other]]),
        )
        return self._first_of_equals(joined)

    def _first_of_equals(self, labels: Labels) -> Labels:
        order = np.lexsort((*self._ties(labels)[::-1], *labels.values_DN))
        ordered_DN = labels.values_DN[:, order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (ordered_DN[:, 1:] != ordered_DN[:, :-1]).any(axis=0)
        return labels.select(order[first])

    def _ties(self, labels: Labels) -> Integers:
        return np.stack([self._places[labels.begin + i].tie_N[rows] for i, rows in enumerate(labels.rows_PN)])

    def across(self, labels: Labels, ending: bool) -> Labels:
        """Without labels that one of another width beats by more than any difference of what lies between."""
        inner_N = labels.last_N if ending else labels.first_N
        links = [measure.links[labels.end if ending else labels.begin - 1] for measure in self._measures]
        links_DWW = np.stack(links if ending else [link.T for link in links])
        kept = []
        states = np.unique(inner_N)
        for state in states:
            own = np.flatnonzero(inner_N == state)
            rivals = [labels.values_DN[:, own]]
            for other in states[states != state]:
                detour_D = (links_DWW[:, other] - links_DWW[:, state]).max(axis=1)
                rivals.append(labels.values_DN[:, inner_N == other] + detour_D[:, None])
            kept.append(own[non_dominated(np.concatenate(rivals, axis=1).T)[: len(own)]])
        return labels.select(np.sort(np.concatenate(kept)))

    def finish(self, labels: Labels) -> Labels:
        """Whole networks that are not beaten, sorted."""
        best = labels.select(np.flatnonzero(non_dominated(labels.values_DN.T)))
        return self._first_of_equals(best)


class _Map:
    """What is known to be possible: the least first objective for each cell of the others' plane.

    Cells have a size of a power of two, so that no rounding can mistake a cell.

    Args:
        groups: values [D, N] of the left and of the right parts that will be paired.
    """

    def __init__(self, groups: Sequence[tuple[Floats, Floats]]) -> None:
        dimensions = len(groups[0][0]) - 1
        least = [min(a[d].min() + b[d].min() for a, b in groups) for d in range(1, dimensions + 1)]
        most = [max(a[d].max() + b[d].max() for a, b in groups) for d in range(1, dimensions + 1)]
        self._least = least
        pairs = sum(a.shape[1] * b.shape[1] for a, b in groups)
        bits = min(_MOST_BITS, pairs.bit_length() // 3 + 1)
        self._sizes = [
            2.0 ** np.ceil(np.log2(max(high - low, 1.0) / 2**bits)) for low, high in zip(least, most, strict=True)
        ]
        self._cells = np.full((2**bits + 2,) * dimensions, np.inf)
        for a, b in groups:
            some, others = a[:, _spread(a[0])], b[:, _spread(b[0])]
            self.learn((some[:, :, None] + others[:, None, :]).reshape(len(a), -1))

    def learn(self, values_DN: Floats) -> None:
        """Add networks (or parts) that are known to be possible."""
        if not values_DN.shape[1]:
            return
        index = tuple(np.ceil(cell).astype(np.int64) for cell in self._positions(values_DN[1:]))
        if not index:
            self._cells = np.minimum(self._cells, values_DN[0].min())
            return
        np.minimum.at(self._cells, index, values_DN[0])
        for axis in range(len(index)):
            np.minimum.accumulate(self._cells, axis=axis, out=self._cells)

    def keep(self, left_DN: Columns, right_DN: Columns, left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
        """Leave out pairs that something known beats."""
        chosen = self.hopeful([a[left] + b[right] for a, b in zip(left_DN, right_DN, strict=True)])
        return left[chosen], right[chosen]

    def hopeful(self, values_DN: Columns | Floats) -> Numbers:
        """Numbers of the networks (or parts) that nothing known is sure to beat."""
        index = tuple(np.floor(cell).astype(np.int64) for cell in self._positions(values_DN[1:]))
        return np.flatnonzero(self._cells[index] >= values_DN[0])

    def _positions(self, values: Columns | Floats) -> list[Floats]:
        return [(value_N - low) / size for value_N, low, size in zip(values, self._least, self._sizes, strict=True)]


def _spread(values_N: Floats) -> Integers:
    """Some labels, evenly over the order of a value."""
    order = np.argsort(values_N, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, _SCOUTS).astype(np.int64))]


def _together(parts: Sequence[Labels]) -> Labels:
    return Labels(
        parts[0].begin,
        parts[0].end,
        np.concatenate([part.values_DN for part in parts], axis=1),
        np.concatenate([part.first_N for part in parts]),
        np.concatenate([part.last_N for part in parts]),
        np.concatenate([part.rows_PN for part in parts], axis=1),
    )


def _too_large(largest: int) -> RunError:
    return RunError(
        f"the front has more than {largest:,} points (or partial networks that may lead to it); it would be of little "
        f"use whole: ask for fewer objectives, or for single budgets"
    )
