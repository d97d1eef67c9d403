"""Prices on the limited costs that make the cheapest network cost as much as possible (the Lagrangian dual).

For any prices, loss + prices × (costs - limits), minimised over *all* networks, is a lower bound of the loss within the
limits; that minimum is easy, because it falls apart into choices. Whatever prices are found, the bound holds; good ones
only make it tight.

Shape legend: N choices, W widths, L limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.solving.chain import (
    Measure,
    cheapest_rows,
    least_by_width,
    measure_of,
    place_of,
    potentials_of,
    priced,
)
from orchestrator.solving.tables import Floats, Integers, Place

ROUNDS = 25
"""Times the whole tables are looked at."""

_STEPS_PER_DIMENSION = 40
_LARGEST_PRICE = 1e3
_SHORTEST_STEP = 1e-7


def best_prices(
    objective: Measure, costs: Sequence[Measure], limits_L: Sequence[float], places: Sequence[Place]
) -> list[float]:
    """Prices [L], at least 0, that nearly maximise the bound.

    The bound is maximised over a few choices of each width, then the whole tables name the choices that are cheapest at
    the prices found, and so on until they name no new ones.
    """
    if not costs:
        return []
    spread = sum(float(values_N.max() - values_N.min()) for values_N in objective.values_PN) or 1.0
    units = [
        max(sum(float(values_N.max() - values_N.min()) for values_N in cost.values_PN), 1.0) / spread for cost in costs
    ]
    prices = np.zeros(len(costs))
    chosen: list[Integers] = [np.zeros(0, dtype=np.int64) for _ in places]
    for _ in range(ROUNDS):
        named = cheapest_rows(priced(objective, costs, prices.tolist()), places)
        if all(np.isin(new, old).all() for new, old in zip(named, chosen, strict=True)):
            break
        chosen = [np.union1d(new, old).astype(np.int64) for new, old in zip(named, chosen, strict=True)]
        prices = _Few(objective, costs, limits_L, places, chosen, units).maximise()
    return [float(price) for price in prices]


class _Few:
    """The bound over a few choices of each place."""

    def __init__(
        self,
        objective: Measure,
        costs: Sequence[Measure],
        limits_L: Sequence[float],
        places: Sequence[Place],
        rows_PN: Sequence[Integers],
        units_L: Sequence[float],
    ) -> None:
        self.units_L = np.array(units_L)
        self.places = [place_of(place, rows) for place, rows in zip(places, rows_PN, strict=True)]
        self.objective = measure_of(objective, rows_PN)
        self.costs = [measure_of(cost, rows_PN) for cost in costs]
        self.limits_L = np.array(limits_L)

    def maximise(self) -> Floats:
        """The prices of the highest bound, by the ellipsoid method (few dimensions, a concave function with kinks)."""
        count = len(self.costs)
        centre = np.full(count, _LARGEST_PRICE / 2)
        if count == 1:
            return self._bisect()
        shape = np.eye(count) * (count * (_LARGEST_PRICE / 2) ** 2)
        best, best_value = np.zeros(count), self._value(np.zeros(count))[0]
        for _ in range(_STEPS_PER_DIMENSION * count * count):
            if (centre < 0).any():
                slope = np.where(centre == centre.min(), 1.0, 0.0)  # prices below 0 bound nothing
            else:
                value, slope = self._value(centre)
                if value > best_value:
                    best, best_value = centre.copy(), value
            steepness = float(np.linalg.norm(slope))
            if steepness == 0.0:
                break
            slope = _as_floats(slope / steepness)
            length = math.sqrt(max(float(slope @ shape @ slope), 0.0))
            if length < _SHORTEST_STEP:
                break
            step = shape @ slope / length
            centre = centre + step / (count + 1)
            shape = count * count / (count * count - 1.0) * (shape - 2.0 / (count + 1) * np.outer(step, step))
        return _as_floats(best / self.units_L)

    def _bisect(self) -> Floats:
        low, high = 0.0, _LARGEST_PRICE
        for _ in range(60):
            middle = (low + high) / 2
            if self._value(np.array([middle]))[1][0] > 0:
                low = middle
            else:
                high = middle
        best = low if self._value(np.array([low]))[0] >= self._value(np.array([high]))[0] else high
        return _as_floats(best / self.units_L)

    def _value(self, scaled_L: Floats) -> tuple[float, Floats]:
        """The bound at prices in scaled units, and its slope: by how much the cheapest network exceeds the limits."""
        prices_L = scaled_L / self.units_L
        measure = priced(self.objective, self.costs, prices_L.tolist())
        least_PW = [least_by_width(v, place) for v, place in zip(measure.values_PN, self.places, strict=True)]
        found = potentials_of(least_PW, measure.links)
        totals_L = np.zeros(len(self.costs))
        state = -1
        for number, place in enumerate(self.places):
            link_W = measure.links[number - 1][state] if number else 0.0
            following = int((link_W + least_PW[number] + found.after_PW[number]).argmin())
            first, last = place.starts[following], place.starts[following + 1]
            row = first + int(measure.values_PN[number][first:last].argmin())
            for limit, cost in enumerate(self.costs):
                totals_L[limit] += cost.values_PN[number][row]
                if number:
                    totals_L[limit] += cost.links[number - 1][state, following]
            state = following
        return found.least - float(prices_L @ self.limits_L), (totals_L - self.limits_L) / self.units_L


def _as_floats(values: Any) -> Floats:
    found: Floats = np.asarray(values, dtype=np.float64)
    return found
