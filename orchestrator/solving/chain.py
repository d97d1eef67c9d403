"""Bounds over a chain of places: the least that goes before and after each choice, by dynamic programming over widths.

Everything additive is bounded alike: the loss, each cost, and the loss with prices on the costs (Lagrange). For each of
these *measures*, the least over all networks through one choice is: the least before + the choice + the least after.

Shape legend: N choices, R resources, W widths, L limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.solving.tables import Floats, Integers, NetworkTables, Place


@dataclass(frozen=True)
class Measure:
    """One additive quantity of networks.

    Attributes:
        values_PN: for each place, what each of its choices adds.
        links: for each pair of neighbours [W before, W after], what lies between.
    """

    values_PN: tuple[Floats, ...]
    links: tuple[Floats, ...]


@dataclass(frozen=True)
class Potentials:
    """The least of a measure that goes before and after each width of each place.

    Attributes:
        before_PW: over everything before the place, the map to it included.
        after_PW: over everything after the place, the map from it included.
        least: over all networks.
    """

    before_PW: tuple[Floats, ...]
    after_PW: tuple[Floats, ...]
    least: float


def loss_measure(tables: NetworkTables) -> Measure:
    """The loss of networks."""
    links = tuple(np.zeros(link.shape[1:]) for link in tables.links)
    return Measure(tuple(place.loss_N for place in tables.places), links)


def cost_measure(tables: NetworkTables, resource: int) -> Measure:
    """One cost of networks."""
    values = tuple(place.cost_RN[resource] for place in tables.places)
    return Measure(values, tuple(link[resource] for link in tables.links))


def priced(objective: Measure, costs: Sequence[Measure], prices_L: Sequence[float]) -> Measure:
    """The objective plus the costs at their prices."""
    values = [values_N.copy() for values_N in objective.values_PN]
    links = [link.copy() for link in objective.links]
    for cost, price in zip(costs, prices_L, strict=True):
        if price:
            for number, value_N in enumerate(cost.values_PN):
                values[number] += price * value_N
            for number, link in enumerate(cost.links):
                links[number] += price * link
    return Measure(tuple(values), tuple(links))


def least_by_width(values_N: Floats, place: Place) -> Floats:
    """The least value of each width's choices [W]; infinite where a width has none."""
    least_W = np.full(len(place.widths), np.inf)
    filled = np.flatnonzero(place.starts[:-1] < place.starts[1:])
    if len(filled):
        least_W[filled] = np.minimum.reduceat(values_N, place.starts[filled])
    return least_W


def potentials(measure: Measure, places: Sequence[Place]) -> Potentials:
    """The least before and after each width.

    Args:
        measure: of the choices in ``places``.
        places: whose choices may be used.
    """
    least_PW = [least_by_width(values_N, place) for values_N, place in zip(measure.values_PN, places, strict=True)]
    return potentials_of(least_PW, measure.links)


def potentials_of(least_PW: Sequence[Floats], links: Sequence[Floats]) -> Potentials:
    """The same from the least value of each width's choices."""
    before = [np.zeros(len(least_PW[0]))]
    for least_W, link in zip(least_PW, links, strict=False):
        before.append((before[-1][:, None] + least_W[:, None] + link).min(axis=0))
    after = [np.zeros(len(least_PW[-1]))]
    for least_W, link in zip(reversed(least_PW), reversed(links), strict=False):
        after.insert(0, (link + least_W[None, :] + after[0][None, :]).min(axis=1))
    return Potentials(tuple(before), tuple(after), float((before[-1] + least_PW[-1]).min()))


def through(measure: Measure, found: Potentials, number: int, place: Place) -> Floats:
    """The least of the measure over all networks through each choice [N] of a place."""
    states_N = place.states()
    return found.before_PW[number][states_N] + measure.values_PN[number] + found.after_PW[number][states_N]


def cheapest_rows(measure: Measure, places: Sequence[Place]) -> list[Integers]:
    """For each place the row of the least value in each width; widths without choices are left out."""
    found = []
    for values_N, place in zip(measure.values_PN, places, strict=True):
        pairs = zip(place.starts[:-1].tolist(), place.starts[1:].tolist(), strict=True)
        rows = [start + int(values_N[start:end].argmin()) for start, end in pairs if end > start]
        found.append(np.array(rows, dtype=np.int64))
    return found


def place_of(place: Place, rows: Integers) -> Place:
    """A place with some of its choices only (row numbers, rising); its widths stay numbered as they were."""
    starts = np.searchsorted(rows, place.starts)
    return Place(
        place.widths, starts, place.loss_N[rows], place.cost_RN[:, rows], place.tie_N[rows], place.source_N[rows]
    )


def measure_of(measure: Measure, rows_PN: Sequence[Integers]) -> Measure:
    """A measure of some choices of each place."""
    values = tuple(values_N[rows] for values_N, rows in zip(measure.values_PN, rows_PN, strict=True))
    return Measure(values, measure.links)
