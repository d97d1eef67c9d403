"""The whole Pareto front over all networks, exactly.

Half networks are joined place by place, and of each width only those are kept that no other one beats; then the halves
are joined. Pairs of halves (and of tiles of halves, see :mod:`pairs`) that some network known already beats are never
looked at (:mod:`known`).

Limits: one on an objective only cuts the front off. One on another cost makes that cost count like an objective until
the halves are joined, for a half that is worse may be the only one that leaves room for the other; unless the cost is
an objective and a constant, as the encoder's weights are with one embedding size.

Shape legend: N labels, D objectives and other limited costs, K networks, P places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import UserError
from orchestrator.solving.chain import (
    Measure,
    cost_measure,
    loss_measure,
    measure_of,
    place_of,
    potentials,
    through,
)
from orchestrator.solving.known import Gathered, KnownNetworks, too_large, too_long, unbeaten_points
from orchestrator.solving.labels import Labels, one_place
from orchestrator.solving.pairs import matching_pairs
from orchestrator.solving.tables import Floats, Integers, Network, NetworkTables, Place

FRONT_LIMIT = 2_000_000
"""The largest number of points, of the front or of a front of partial networks, that is followed."""

PAIR_LIMIT = 600_000_000
"""The largest number of pairs (of partial networks, or of tiles of them) that are looked at in a join."""

OBJECTIVES = ("loss", "parameters", "latency_ms")

_SHARE = 32
"""Of so many left parts one is looked at first, where there are many pairs."""

_WHOLE_TO_SHARE = 11
"""How many times as many pairs are looked at afterwards; it is less than the share, for larger tiles do more at once.
Measured: 11 to 14, on tables like the paper's with losses that are more and less noisy."""

_SCOUTED_PAIRS = 10_000_000
"""With fewer pairs, all are looked at straight away."""


@dataclass(frozen=True)
class Front:
    """All networks that no other network beats.

    Where several have equal values, the first in the order of texts is the one (where other costs than the objectives
    are limited, any).

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
    limits: Mapping[str, float] | None = None,
    *,
    rivals_KD: Floats | None = None,
    largest: int = FRONT_LIMIT,
    most_pairs: int = PAIR_LIMIT,
) -> Front:
    """All networks within limits that no other one within them equals or beats in every objective.

    Args:
        tables: the choices.
        objectives: one to three of ``loss`` and the tables' resources, all minimised.
        limits: largest total by name of the resource, in the units people use, whether an objective or not.
        rivals_KD: values of other networks, as ``values_KD`` of their front: what they beat may be left out. Their
            tables must count losses in the same unit.
        largest: points after which it is given up.
        most_pairs: pairs of partial networks after which it is given up; where a sample tells that there will be more,
            at once.

    Returns:
        The front; without networks where none keeps the limits.

    Raises:
        UserError: an objective or a limited resource is unknown, or an objective is named twice, or there are none or
            more than three.
        RunError: the front, or that of partial networks, has more than ``largest`` points; or more than ``most_pairs``
            pairs would have to be looked at.
    """
    _check(tables, objectives)
    measures, limits_D = _columns(tables, objectives, limits or {})
    units_D = np.array(
        [tables.loss_unit if name == "loss" else tables.in_units(tables.resource(name), 1.0) for name in objectives]
    )
    places = tables.places
    rows_PN = [_rows_within(places, measures, limits_D, number) for number in range(len(places))]
    if not all(map(len, rows_PN)):
        return _empty_front(tables, objectives)
    rows_PN = [_unbeaten_rows(places[number], rows, measures, number) for number, rows in enumerate(rows_PN)]
    joiner = _Joiner(
        [measure_of(measure, rows_PN) for measure in measures],
        [place_of(place, rows) for place, rows in zip(places, rows_PN, strict=True)],
        limits_D,
        len(objectives),
        None if rivals_KD is None else np.rint(rivals_KD / units_D).T,
        largest,
        most_pairs,
    )
    halves = (len(places) + 1) // 2
    left, right = joiner.half(range(halves)), joiner.half(range(len(places) - 1, halves - 1, -1))
    if not (len(left) and len(right)):
        return _empty_front(tables, objectives)
    left, right = joiner.across(left, ending=True), joiner.across(right, ending=False)
    whole = joiner.finish(joiner.join(left, right, outer="none"))
    rows_KP = np.stack([rows[column] for rows, column in zip(rows_PN, whole.rows_PN, strict=True)], axis=1)
    values_KD = whole.values_DN[: len(objectives)].T * units_D
    return Front(tables, tuple(objectives), values_KD, rows_KP, tables.combinations)


def _empty_front(tables: NetworkTables, objectives: Sequence[str]) -> Front:
    rows_KP = np.zeros((0, len(tables.places)), dtype=np.int64)
    return Front(tables, tuple(objectives), np.zeros((0, len(objectives))), rows_KP, tables.combinations)


def _columns(
    tables: NetworkTables, objectives: Sequence[str], limits: Mapping[str, float]
) -> tuple[list[Measure], Floats]:
    """What is added up, objectives first, and the limit of each column (infinite: none), in the units of the tables."""
    numbers = [None if name == "loss" else tables.resource(name) for name in objectives]
    limits_D = [np.inf] * len(numbers)
    for resource, limit in tables.limits(limits).items():
        for column, number in enumerate(numbers):
            offset = None if number is None else _constant_difference(tables, resource, number)
            if offset is not None:
                limits_D[column] = min(limits_D[column], limit - offset)
                break
        else:
            numbers.append(resource)
            limits_D.append(limit)
    measures = [loss_measure(tables) if number is None else cost_measure(tables, number) for number in numbers]
    return measures, np.array(limits_D)


def _constant_difference(tables: NetworkTables, one: int, other: int) -> float | None:
    """By how much one cost exceeds another if it is the same for all networks; None if it is not."""
    if one == other:
        return 0.0
    columns = [place.cost_RN[one] - place.cost_RN[other] for place in tables.places]
    columns += [(link[one] - link[other]).reshape(-1) for link in tables.links]
    constant = all((column == column[0]).all() for column in columns)
    return float(sum(column[0] for column in columns)) if constant else None


def _check(tables: NetworkTables, objectives: Sequence[str]) -> None:
    if not 1 <= len(objectives) <= 3 or len(set(objectives)) < len(objectives):
        raise UserError(
            f"objectives of a front: found {', '.join(objectives) or 'none'}, expected one to three different"
        )
    for name in objectives:
        if name != "loss":
            tables.resource(name)


def _rows_within(places: Sequence[Place], measures: Sequence[Measure], limits_D: Floats, number: int) -> Integers:
    """The rows of a place that any network within the limits can have."""
    fits = np.ones(len(places[number]), dtype=bool)
    for measure, limit in zip(measures, limits_D.tolist(), strict=True):
        if np.isfinite(limit):
            fits &= through(measure, potentials(measure, places), number, places[number]) <= limit
    return np.flatnonzero(fits)


def _unbeaten_rows(place: Place, rows: Integers, measures: Sequence[Measure], number: int) -> Integers:
    """Those among some rows of a place that no other one of the same width equals or beats."""
    values_DN = np.stack([measure.values_PN[number][rows] for measure in measures])
    return rows[_front_by_state(place.states()[rows], values_DN, place.tie_N[rows][None])]


def _front_by_state(states_N: Integers, values_DN: Floats, ties_PN: Integers) -> Integers:
    """Numbers of the labels that no label of their state equals or beats; of equal ones the first by texts."""
    kept = []
    for state in np.unique(states_N):
        members = np.flatnonzero(states_N == state)
        members = members[unbeaten_points(values_DN[:, members])]
        order = np.lexsort((*ties_PN[::-1, members], *values_DN[:, members]))
        ordered_DN = values_DN[:, members[order]]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (ordered_DN[:, 1:] != ordered_DN[:, :-1]).any(axis=0)
        kept.append(members[order[first]])
    return np.sort(np.concatenate(kept))


class _Joiner:
    """Joins parts and keeps of each width what is not beaten."""

    def __init__(
        self,
        measures: Sequence[Measure],
        places: Sequence[Place],
        limits_D: Floats,
        objectives: int,
        rivals_DN: Floats | None,
        largest: int,
        most_pairs: int,
    ) -> None:
        self._measures, self._places, self._largest, self._most_pairs = measures, places, largest, most_pairs
        self._limits_D, self._objectives, self._rivals_DN = limits_D, objectives, rivals_DN
        self._least = [potentials(measure, places) for measure in measures]

    def place(self, number: int) -> Labels:
        """One place's choices."""
        return one_place(self._measures, self._places, number)

    def half(self, numbers: Sequence[int]) -> Labels:
        """Parts over neighbouring places that are not beaten; none, where none can be completed within the limits.

        Args:
            numbers: of the places, from one end of the chain on.
        """
        labels = self.place(numbers[0])
        for number in numbers[1:]:
            if not len(labels):
                break
            if number > numbers[0]:
                labels = self.join(labels, self.place(number), outer="right")
            else:
                labels = self.join(self.place(number), labels, outer="left")
        return labels

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
            joined.append(self._join_groups(left, right, groups, self._left_over(left, right, state)))
            if sum(map(len, joined)) > self._largest:
                raise too_large(self._largest)
        return _together(joined)

    def _left_over(self, left: Labels, right: Labels, state: int | None) -> Floats:
        """The limits of joined parts [D], once the rest of the network has taken what it needs at least."""
        if state is None:
            return self._limits_D
        if left.begin:
            rest_D = np.array([one.before_PW[left.begin][state] for one in self._least])
        else:
            rest_D = np.array([one.after_PW[right.end][state] for one in self._least])
        left_D: Floats = self._limits_D - rest_D
        return left_D

    def _join_groups(
        self, left: Labels, right: Labels, groups: Sequence[tuple[Integers, Integers, Floats]], limits_D: Floats
    ) -> Labels:
        """The front of several sets of pairs that compete with each other."""
        sides = [(left.values_DN[:, a] + link[:, None], right.values_DN[:, b]) for a, b, link in groups]
        whole = left.begin == 0 and right.end == len(self._places) - 1
        known = KnownNetworks(sides, self._objectives if whole else len(limits_D), limits_D)
        if whole and self._rivals_DN is not None:
            known.learn(self._rivals_DN)
        self._scout(sides, known)
        found = Gathered(known, self._largest)
        for (some, rest, _), (first_DN, second_DN) in zip(groups, sides, strict=True):
            for one, other in matching_pairs(*known.positions(first_DN, second_DN), known.hopeful):
                found.add(first_DN[:, one] + second_DN[:, other], some[one], rest[other])
                if known.asked > self._most_pairs:
                    raise too_long(self._most_pairs)
        values_DN, one, other = found.front()
        joined = Labels(
            left.begin,
            right.end,
            values_DN,
            left.first_N[one],
            right.last_N[other],
            np.concatenate([left.rows_PN[:, one], right.rows_PN[:, other]]),
        )
        return self._first_of_equals(joined, known.compared)

    def _scout(self, sides: Sequence[tuple[Floats, Floats]], known: KnownNetworks) -> None:
        """Look at a share of the pairs first: the map learns most of what there is, and what is hopeless ends early."""
        if sum(a.shape[1] * b.shape[1] for a, b in sides) < _SCOUTED_PAIRS:
            return
        for first_DN, second_DN in sides:
            some_DN = first_DN[:, np.argsort(first_DN[0], kind="stable")[_SHARE // 2 :: _SHARE]]
            new = []
            for one, other in matching_pairs(*known.positions(some_DN, second_DN), known.hopeful):
                new.append(some_DN[:, one] + second_DN[:, other])
                if known.asked * _WHOLE_TO_SHARE > self._most_pairs:
                    raise too_long(self._most_pairs)
            if new:
                known.learn(np.concatenate(new, axis=1))

    def _first_of_equals(self, labels: Labels, compared: int) -> Labels:
        """Of labels that are equal in the first columns, the first by texts."""
        values_DN = labels.values_DN[:compared]
        order = np.lexsort((*self._ties(labels)[::-1], *values_DN))
        ordered_DN = values_DN[:, order]
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
            kept.append(own[unbeaten_points(np.concatenate(rivals, axis=1))[: len(own)]])
        return labels.select(np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64))

    def finish(self, labels: Labels) -> Labels:
        """Whole networks that are not beaten, sorted."""
        best = labels.select(np.flatnonzero(unbeaten_points(labels.values_DN[: self._objectives])))
        return self._first_of_equals(best, self._objectives)


def _together(parts: Sequence[Labels]) -> Labels:
    return Labels(
        parts[0].begin,
        parts[0].end,
        np.concatenate([part.values_DN for part in parts], axis=1),
        np.concatenate([part.first_N for part in parts]),
        np.concatenate([part.last_N for part in parts]),
        np.concatenate([part.rows_PN for part in parts], axis=1),
    )
