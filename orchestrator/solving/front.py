"""The whole Pareto front over all networks, exactly.

Half networks are joined place by place, and of each width only those are kept that no other one beats; then the halves
are joined. Pairs of halves (and of tiles of halves, see :mod:`pairs`) that some network known already beats are never
looked at: a map over the plane of two objectives says what the best third one is.

Shape legend: N labels, D objectives, K networks, P places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import RunError, UserError
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.chain import Measure, cost_measure, loss_measure, measure_of, place_of
from orchestrator.solving.labels import Labels, one_place
from orchestrator.solving.pairs import Columns, matching_pairs
from orchestrator.solving.tables import Floats, Integers, Network, NetworkTables, Place

FRONT_LIMIT = 2_000_000
"""The largest number of points, of the front or of a front of partial networks, that is followed."""

PAIR_LIMIT = 600_000_000
"""The largest number of pairs (of partial networks, or of tiles of them) that are looked at in a join."""

OBJECTIVES = ("loss", "parameters", "latency_ms")

_MOST_BITS = 11
"""Bits of a coordinate of the map, where many pairs are sorted with it."""

_COLLECTED = 4_000_000
"""Pairs that are gathered before the beaten ones are left out."""

_LEARNED = 400_000
"""New pairs after which the map learns."""

_SHARE = 32
"""Of so many left parts one is looked at first, where there are many pairs."""

_WHOLE_TO_SHARE = 11
"""How many times as many pairs are looked at afterwards; it is less than the share, for larger tiles do more at once.
Measured: 11 to 14, on tables like the paper's with losses that are more and less noisy."""

_SCOUTED_PAIRS = 10_000_000
"""With fewer pairs, all are looked at straight away."""

_SWEPT = 4096
"""Points that are compared with all earlier ones at once."""

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


def front(
    tables: NetworkTables,
    objectives: Sequence[str] = OBJECTIVES,
    largest: int = FRONT_LIMIT,
    most_pairs: int = PAIR_LIMIT,
) -> Front:
    """All networks that no other one equals or beats in every objective.

    Args:
        tables: the choices.
        objectives: one to three of ``loss`` and the tables' resources, all minimised.
        largest: points after which it is given up.
        most_pairs: pairs of partial networks after which it is given up; where a sample tells that there will be more,
            at once.

    Raises:
        UserError: an objective is unknown, or named twice, or there are none or more than three.
        RunError: the front, or that of partial networks, has more than ``largest`` points; or more than ``most_pairs``
            pairs would have to be looked at.
    """
    _check(tables, objectives)
    measures = [
        loss_measure(tables) if name == "loss" else cost_measure(tables, tables.resource(name)) for name in objectives
    ]
    rows_PN = [_unbeaten_rows(place, measures, number) for number, place in enumerate(tables.places)]
    places = [place_of(place, rows) for place, rows in zip(tables.places, rows_PN, strict=True)]
    joiner = _Joiner([measure_of(measure, rows_PN) for measure in measures], places, largest, most_pairs)
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

    def __init__(self, measures: Sequence[Measure], places: Sequence[Place], largest: int, most_pairs: int) -> None:
        self._measures, self._places, self._largest, self._most_pairs = measures, places, largest, most_pairs

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
        sides = [(left.values_DN[:, a] + link[:, None], right.values_DN[:, b]) for a, b, link in groups]
        known = _Map(sides)
        self._scout(sides, known)
        found = _Gathered(known, self._largest)
        for (some, rest, _), (first_DN, second_DN) in zip(groups, sides, strict=True):
            for one, other in matching_pairs(*known.positions(first_DN, second_DN), known.hopeful):
                found.add(first_DN[:, one] + second_DN[:, other], some[one], rest[other])
                if known.asked > self._most_pairs:
                    raise _too_long(self._most_pairs)
        values_DN, one, other = found.front()
        joined = Labels(
            left.begin,
            right.end,
            values_DN,
            left.first_N[one],
            right.last_N[other],
            np.concatenate([left.rows_PN[:, one], right.rows_PN[:, other]]),
        )
        return self._first_of_equals(joined)

    def _scout(self, sides: Sequence[tuple[Floats, Floats]], known: _Map) -> None:
        """Look at a share of the pairs first: the map learns most of what there is, and what is hopeless ends early."""
        if sum(a.shape[1] * b.shape[1] for a, b in sides) < _SCOUTED_PAIRS:
            return
        for first_DN, second_DN in sides:
            some_DN = first_DN[:, np.argsort(first_DN[0], kind="stable")[_SHARE // 2 :: _SHARE]]
            new = []
            for one, other in matching_pairs(*known.positions(some_DN, second_DN), known.hopeful):
                new.append(some_DN[:, one] + second_DN[:, other])
                if known.asked * _WHOLE_TO_SHARE > self._most_pairs:
                    raise _too_long(self._most_pairs)
            if new:
                known.learn(np.concatenate(new, axis=1))

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
        best = labels.select(np.flatnonzero(unbeaten_points(labels.values_DN)))
        return self._first_of_equals(best)


class _Gathered:
    """Pairs that may be on the front; those that turn out to be beaten are left out now and then.

    Args:
        known: learns from the pairs.
        largest: more than so many that nothing beats are given up.
    """

    def __init__(self, known: _Map, largest: int) -> None:
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
                self._select(unbeaten_points)
                # Sorting them out takes longer than finding them, so it waits until there are several times as many.
                self._enough = max(_COLLECTED, 3 * self._count)
            if self._count > self._largest:
                raise _too_large(self._largest)

    def front(self) -> tuple[Floats, Integers, Integers]:
        """Values [D, N] and numbers of the pairs that nothing beats."""
        self._learn()
        self._select(self._known.keeps)
        self._select(unbeaten_points)
        if self._count > self._largest:
            raise _too_large(self._largest)
        return self._parts[0]

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
    """
    count = values_DN.shape[1]
    mask = np.zeros(count, dtype=bool)
    if len(values_DN) != 3 or count < 4 * _SWEPT:
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


class _Map:
    """What is known to be possible: the least first objective for each cell of the others' plane.

    Cells have a size of a power of two, so that no rounding can mistake a cell. Fewer than three objectives leave the
    plane with a single row, or cell.

    Args:
        groups: values [D, N] of the left and of the right parts that will be paired.
    """

    def __init__(self, groups: Sequence[tuple[Floats, Floats]]) -> None:
        dimensions = len(groups[0][0])
        least = [min(a[d].min() + b[d].min() for a, b in groups) for d in range(1, dimensions)]
        most = [max(a[d].max() + b[d].max() for a, b in groups) for d in range(1, dimensions)]
        pairs = sum(a.shape[1] * b.shape[1] for a, b in groups)
        bits = min(_MOST_BITS, pairs.bit_length() // 3 + 2)
        sizes = [2.0 ** np.ceil(np.log2(max(high - low, 1.0) / 2**bits)) for low, high in zip(least, most, strict=True)]
        self._least, self._sizes = [0.0, *least], [1.0, *sizes]
        extents = [int((high - low) / size) + 2 for low, high, size in zip(least, most, sizes, strict=True)]
        self._cells = np.full(extents, np.inf)
        self.asked = 0  # how many pairs were looked up
        for a, b in groups:
            some, others = a[:, _spread(a[0])], b[:, _spread(b[0])]
            self._enter((some[:, :, None] + others[:, None, :]).reshape(len(a), -1))
        self._spread()

    def learn(self, values_DN: Floats) -> None:
        """Add networks (or parts) that are known to be possible."""
        self._enter(values_DN)
        self._spread()

    def positions(self, left_DN: Floats, right_DN: Floats) -> tuple[Columns, Columns]:
        """The coordinates of parts, such that sums of them can be looked up."""
        left = [(a - low) / size for a, low, size in zip(left_DN, self._least, self._sizes, strict=True)]
        return left, [b / size for b, size in zip(right_DN, self._sizes, strict=True)]

    def hopeful(self, sums: Columns) -> NDArray[np.bool_]:
        """Which networks (or parts), at their positions, nothing known is sure to beat."""
        self.asked += len(sums[0])
        if len(sums) == 1:
            known: Any = self._cells
        else:
            cell_N = sums[1].astype(np.int64)
            for sum_N, extent in zip(sums[2:], self._cells.shape[1:], strict=True):
                cell_N *= extent
                cell_N += sum_N.astype(np.int64)
            known = self._cells.reshape(-1)[cell_N]
        found: NDArray[np.bool_] = sums[0] <= known
        return found

    def keeps(self, values_DN: Floats) -> NDArray[np.bool_]:
        """The same for values."""
        return self.hopeful(self.positions(values_DN, np.zeros((len(values_DN), 1)))[0])

    def _enter(self, values_DN: Floats) -> None:
        positions = self.positions(values_DN, np.zeros((len(values_DN), 1)))[0]
        if len(positions) == 1:
            self._cells = np.minimum(self._cells, values_DN[0].min(initial=np.inf))
        else:
            np.minimum.at(self._cells, tuple(np.ceil(cell).astype(np.int64) for cell in positions[1:]), values_DN[0])

    def _spread(self) -> None:
        for axis in range(self._cells.ndim):
            np.minimum.accumulate(self._cells, axis=axis, out=self._cells)


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


def _too_long(most_pairs: int) -> RunError:
    return RunError(
        f"the front would take looking at more than {most_pairs:,} pairs of partial networks (PAIR_LIMIT): losses "
        f"follow the costs so closely that almost everything is on the front; ask for fewer objectives, or for single "
        f"budgets"
    )
