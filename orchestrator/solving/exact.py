"""The best networks within limits, exactly.

How: prices on the limited costs give a lower bound for every choice and every pair of choices (:mod:`prices`). All
networks whose bound is at most a target are enumerated, as pairs of half networks that fit together (:mod:`pairs`). If
they hold as many feasible networks as are wanted with a loss up to the target, no other network can be better, because
its bound would be within the target too; otherwise the target is raised.

Shape legend: N choices, R resources, W widths, L limits, D measures, P places, K networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import RunError
from orchestrator.solving.chain import (
    Measure,
    Potentials,
    cost_measure,
    loss_measure,
    measure_of,
    place_of,
    potentials,
    priced,
    through,
)
from orchestrator.solving.choosing import Best, classes_of, take_apart, unbeaten
from orchestrator.solving.infeasibility import Impossible, ImpossibleBudgetError
from orchestrator.solving.labels import Labels, join, meeting, one_place
from orchestrator.solving.pairs import Counter, within
from orchestrator.solving.prices import best_prices
from orchestrator.solving.tables import Integers, Network, NetworkTables, Place

PAIR_LIMIT = 500_000_000
"""The largest number of pairs (of partial networks, or of tiles of them) that are looked at for one answer."""

NETWORK_LIMIT = 3_000_000
"""The largest number of whole networks that are compared by their texts for one answer."""

_FIRST_CHOICES = 48
"""Choices of each place, on average, with which the enumeration begins."""

_FEW = 500
"""Partial networks that are not worth thinning."""

_SAMPLE = 8192
"""Partial networks that tell whether thinning is worth it."""

_ROUNDING = 1e-11


@dataclass(frozen=True)
class Solution:
    """The best networks within limits.

    Attributes:
        networks: lowest loss first; equal losses by the texts of their choices, the embeddings first.
        combinations: how many networks there are to choose from.
        lower_bound: no network within the limits has a smaller loss, by the prices alone.
        enumerated: networks that were looked at one by one.
    """

    networks: tuple[Network, ...]
    combinations: int
    lower_bound: float
    enumerated: int


class Solver:
    """Answers budget after budget over the same tables.

    Args:
        tables: the choices.
    """

    def __init__(self, tables: NetworkTables) -> None:
        self.tables = tables
        self._loss = loss_measure(tables)
        self._costs = [cost_measure(tables, number) for number in range(len(tables.resources))]
        self._least_loss = potentials(self._loss, tables.places)
        self._least_cost = [potentials(cost, tables.places) for cost in self._costs]

    def solve(self, limits: Mapping[str, float] | None = None, top: int = 1) -> Solution:
        """The ``top`` networks of lowest loss that keep all limits.

        Args:
            limits: largest total by name of the resource, in the units people use; none: the best of all.
            top: how many; fewer come back only where there are not as many.

        Raises:
            ImpossibleBudgetError: no network keeps the limits; the error says which limit is impossible and what the
                nearest feasible one is.
            UserError: there is no such resource.
            RunError: the tables are so ambiguous that too many networks would have to be compared.
        """
        if top < 1:
            raise ValueError(f"top is {top}, expected at least 1")
        counted = self.tables.limits(limits or {})
        self._require_each(counted, limits or {})
        found = self._best(self._loss, self._least_loss, counted, top)
        if found is None:
            raise self._jointly_impossible(counted, limits or {})
        rows_KP, bound, enumerated = found
        networks = tuple(self.tables.networks(rows_KP))
        return Solution(networks, self.tables.combinations, bound * self.tables.loss_unit, enumerated)

    def least(self, resource: str, limits: Mapping[str, float] | None = None) -> Network | None:
        """A network that costs least of one resource among those that keep the limits; None if none keeps them."""
        number = self.tables.resource(resource)
        counted = self.tables.limits(limits or {})
        if not self._feasible(counted):
            return None
        found = self._best(self._costs[number], self._least_cost[number], counted, 1)
        return None if found is None else self.tables.network(found[0][0])

    # --- feasibility ---------------------------------------------------------------------------------------------

    def _require_each(self, counted: Mapping[int, float], limits: Mapping[str, float]) -> None:
        """Each limit alone can be kept."""
        beyond = [
            Impossible(name, limit, self.tables.in_units(number, self._least_cost[number].least))
            for (number, value), (name, limit) in zip(counted.items(), limits.items(), strict=True)
            if self._least_cost[number].least > value
        ]
        if beyond:
            raise ImpossibleBudgetError(beyond, jointly=False)

    def _feasible(self, counted: Mapping[int, float]) -> bool:
        """Whether any network keeps all limits: the least of one cost within the others keeps its own."""
        if any(self._least_cost[number].least > value for number, value in counted.items()):
            return False
        if len(counted) < 2:
            return True
        *others, last = counted
        rest = {number: counted[number] for number in others}
        if not self._feasible(rest):
            return False
        least = self._least_within(last, rest)
        return least is not None and least <= counted[last]

    def _least_within(self, number: int, counted: Mapping[int, float]) -> float | None:
        """The least of a cost within limits that are known to be feasible together."""
        found = self._best(self._costs[number], self._least_cost[number], counted, 1, known_feasible=True)
        return None if found is None else float(self.tables.totals(found[0][:1])[1][number, 0])

    def _jointly_impossible(self, counted: Mapping[int, float], limits: Mapping[str, float]) -> ImpossibleBudgetError:
        """For each limit, what it would have to be if the others stay."""
        names = dict(zip(counted, limits, strict=True))
        nearest = []
        for number in counted:
            others = {other: value for other, value in counted.items() if other != number}
            least = self._least_within(number, others) if self._feasible(others) else None
            at_least = None if least is None else self.tables.in_units(number, least)
            nearest.append(Impossible(names[number], limits[names[number]], at_least))
        return ImpossibleBudgetError(nearest, jointly=True)

    # --- the search ----------------------------------------------------------------------------------------------

    def _best(
        self,
        objective: Measure,
        least: Potentials,
        counted: Mapping[int, float],
        top: int,
        known_feasible: bool = False,
    ) -> tuple[Integers, float, int] | None:
        """Rows [K, P] of the best networks, the bound, and how many were looked at; None if nothing is feasible."""
        costs = [self._costs[number] for number in counted]
        limits_L = list(counted.values())
        places = self.tables.places
        prices_L = best_prices(objective, costs, limits_L, places)
        search = _Search(self.tables, objective, least, counted, prices_L, [self._least_cost[n] for n in counted], top)
        checked = known_feasible or len(counted) < 2
        for number, slack in enumerate(search.schedule()):
            enough = search.enumerate(slack)
            if enough:
                break
            if number >= 1 and not search.found and not checked:
                if not self._feasible(counted):
                    return None
                checked = True
        if not search.found:
            return None
        return search.best.rows_KP, search.bound, search.enumerated


class _Search:
    """One enumeration: the measures and their bounds, and the best networks so far."""

    def __init__(
        self,
        tables: NetworkTables,
        objective: Measure,
        least: Potentials,
        counted: Mapping[int, float],
        prices_L: Sequence[float],
        least_costs: Sequence[Potentials],
        top: int,
    ) -> None:
        self.tables, self.top = tables, top
        costs = [cost_measure(tables, number) for number in counted]
        self._limits_L = list(counted.values())
        reduced = priced(objective, costs, prices_L)
        found = potentials(reduced, tables.places)
        self._measures = [reduced, objective, *costs]
        self._potentials = [found, least, *least_costs]
        self._offset = float(np.dot(prices_L, self._limits_L)) if costs else 0.0
        self.bound = max(found.least - self._offset, least.least)
        self._rounding = _ROUNDING * (abs(found.least) + self._offset + 1.0)
        self._slack_PN = [
            np.maximum(through(reduced, found, number, place) - self._offset, through(objective, least, number, place))
            - self.bound
            for number, place in enumerate(tables.places)
        ]
        self._usable_PN = [
            np.all(
                [
                    through(cost, known, number, place) <= limit
                    for cost, known, limit in zip(costs, least_costs, self._limits_L, strict=True)
                ]
                or [np.ones(len(place), dtype=bool)],
                axis=0,
            )
            for number, place in enumerate(tables.places)
        ]
        self._limited = list(counted)
        self.best = Best(tables, top)
        self.enumerated = 0
        self._counter = Counter(PAIR_LIMIT)

    @property
    def found(self) -> bool:
        """Whether any feasible network was met."""
        return len(self.best.rows_KP) > 0

    def schedule(self) -> Iterator[float]:
        """Ever larger distances between bound and target; the last one leaves nothing out.

        As soon as enough networks are known, whatever their loss, the worst of them says how far it is to the end.
        """
        every = np.sort(np.concatenate([s[u] for s, u in zip(self._slack_PN, self._usable_PN, strict=True)]))
        choices = _FIRST_CHOICES * len(self._slack_PN) + self.top
        while choices < len(every):
            slack = min(float(every[choices]), self.best.target - self.bound)
            yield slack
            choices = max(choices * 2, int(np.searchsorted(every, slack, side="right")))
        yield self.best.target - self.bound

    def enumerate(self, slack: float) -> bool:
        """Look at every network whose bound is within ``slack`` of the least bound.

        Returns:
            Whether the networks kept are proven to be the best.
        """
        rows_PN = [
            np.flatnonzero(usable & (slack_N <= slack + self._rounding))
            for slack_N, usable in zip(self._slack_PN, self._usable_PN, strict=True)
        ]
        if all(len(rows) for rows in rows_PN):
            self._walk(rows_PN, slack)
        return self.best.target <= self.bound + slack + self._rounding

    def _walk(self, rows_PN: Sequence[Integers], slack: float) -> None:
        tables = self.tables
        classes = [
            classes_of(place, rows, self._limited, values_N)
            for place, rows, values_N in zip(tables.places, rows_PN, self._measures[1].values_PN, strict=True)
        ]
        chosen_PN = [one.best_N for one in classes]
        if self.top == 1:
            chosen_PN = [
                rows[
                    unbeaten(
                        place.states()[rows],
                        self._measures[1].values_PN[number][rows],
                        place.tie_N[rows][None],
                        place.cost_RN[self._limited][:, rows],
                    )
                ]
                for number, (place, rows) in enumerate(zip(tables.places, chosen_PN, strict=True))
            ]
        best = Best(tables, self.top, self.best.target)
        places = [place_of(place, rows) for place, rows in zip(tables.places, chosen_PN, strict=True)]
        measures = [measure_of(measure, chosen_PN) for measure in self._measures]
        # With fewer choices the bounds are tighter.
        known = [potentials(measure, places) for measure in measures]
        bounds_D = [self.bound + slack + self._offset + self._rounding, best.target, *self._limits_L]
        halves = (len(places) + 1) // 2
        left = one_place(measures, places, 0)
        for number in range(1, halves):
            left = self._thin(
                join(left, one_place(measures, places, number), measures, known, bounds_D, self._counter), places
            )
        right = one_place(measures, places, len(places) - 1)
        for number in range(len(places) - 2, halves - 1, -1):
            right = self._thin(
                join(one_place(measures, places, number), right, measures, known, bounds_D, self._counter), places
            )
        for first, second, one, other in meeting(left, right, measures, known, within(bounds_D, self._counter)):
            columns = [*first.rows_PN[:, one], *second.rows_PN[:, other]]
            rows_KP = np.stack([rows[column] for rows, column in zip(chosen_PN, columns, strict=True)], axis=1)
            self.enumerated += len(rows_KP)
            if self.enumerated > NETWORK_LIMIT:
                raise RunError(
                    f"more than {NETWORK_LIMIT:,} networks (NETWORK_LIMIT) would have to be compared by their texts: "
                    f"too many have (almost) equal losses; ask for fewer networks (--top 1), add or tighten a limit"
                )
            best.take(first.values_DN[1][one] + second.values_DN[1][other], rows_KP)
            bounds_D[1] = best.target
        self.best.take(*take_apart(tables, self._measures[1], best, classes, self.top))

    def _thin(self, labels: Labels, places: Sequence[Place]) -> Labels:
        """Without partial networks that are beaten, where only the best network is wanted."""
        if self.top > 1 or len(labels) < _FEW:
            return labels
        if len(labels) > 4 * _SAMPLE:
            # Where hardly anything is beaten (losses that follow the costs), thinning takes longer than it saves.
            sample = labels.select(np.arange(0, len(labels), len(labels) // _SAMPLE))
            if len(self._unbeaten(sample, places)) > 0.9 * len(sample):
                return labels
        return labels.select(self._unbeaten(labels, places))

    @staticmethod
    def _unbeaten(labels: Labels, places: Sequence[Place]) -> Integers:
        ties_PN = np.stack([places[labels.begin + i].tie_N[rows] for i, rows in enumerate(labels.rows_PN)])
        inner_N = labels.last_N if labels.begin == 0 else labels.first_N
        return unbeaten(inner_N, labels.values_DN[1], ties_PN, labels.values_DN[2:])
