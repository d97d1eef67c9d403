"""The tables a selection is solved over: for each place of a network its choices, and what neighbouring widths add.

A network is a chain of places: the embeddings first, then one block after the other. At each place one choice is made.
The loss of a network is the sum of its choices' losses; each of its costs is the sum of its choices' costs and of what
the linear maps between neighbours cost, which depends on the two widths alone.

Everything is counted in whole numbers, so that sums, limits and ties are exact whatever the order of adding: costs as
they are (latency in :data:`LATENCY_UNIT_MS`), losses in a unit of 2^-52 of the largest possible sum, which is as fine
as floating-point sums are. Whole numbers up to 2^53 are exact in float64, in which they are kept.

Shape legend: N choices, R resources, W widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LinkCosts = Callable[[int, int], Sequence[int]]
"""(width before, width after) -> what lies between, one whole number a resource."""

LATENCY_UNIT_MS = 1e-9
"""What latencies are counted in: a thousandth of a nanosecond."""

UNITS = {"latency_ms": LATENCY_UNIT_MS}
"""Units of the resources that are not counted one by one."""

_LARGEST_EXACT = 2.0**53


@dataclass(frozen=True)
class Choices:
    """What can be chosen at one place.

    Attributes:
        texts: canonical text of each choice; equal losses are told apart by it.
        widths: int64 [N], the width that the neighbours see.
        losses: float64 [N]; a choice whose loss is not finite cannot be chosen.
        costs: int64 [N, R], in the units of the resources.
    """

    texts: Sequence[str]
    widths: Integers
    losses: Floats
    costs: Integers


@dataclass(frozen=True)
class Place:
    """The choices of one place, sorted by width and then by text.

    Attributes:
        widths: int64 [W], rising.
        starts: int64 [W + 1], where each width's choices begin.
        loss_N: in units of the tables' ``loss_unit``.
        cost_RN: one row a resource.
        tie_N: place in the order of texts.
        source_N: number of the choice in the :class:`Choices` it came from.
    """

    widths: Integers
    starts: Integers
    loss_N: Floats
    cost_RN: Floats
    tie_N: Integers
    source_N: Integers

    def __len__(self) -> int:
        return len(self.loss_N)

    def states(self) -> Integers:
        """Number of each choice's width."""
        return np.repeat(np.arange(len(self.widths)), np.diff(self.starts))


class NetworkTables:
    """All networks: the choices of each place, and the costs of what lies between.

    Args:
        resources: names of the costs.
        places: the choices at each place, embeddings first; at least two places.
        link_costs: one function for each pair of neighbours; None: nothing lies between any.

    Raises:
        UserError: a place has no choice with a finite loss.
        ValueError: shapes do not fit, or numbers are too large to be exact.
    """

    def __init__(
        self, resources: Sequence[str], places: Sequence[Choices], link_costs: Sequence[LinkCosts] | None = None
    ) -> None:
        self.resources = tuple(resources)
        self.choices = tuple(places)
        if len(self.choices) < 2:
            raise ValueError(f"{len(self.choices)} places, expected the embeddings and at least one block")
        for number, choices in enumerate(self.choices):
            shape = (len(choices.texts), len(self.resources))
            if choices.costs.shape != shape or len(choices.losses) != shape[0] or len(choices.widths) != shape[0]:
                raise ValueError(f"place {number}: {shape[0]} texts, costs of shape {choices.costs.shape}")
            if not np.isfinite(choices.losses).any():
                raise UserError(f"place {number} of the networks has no choice with a loss; score its architectures")
        largest = sum(float(np.abs(one.losses[np.isfinite(one.losses)]).max()) for one in self.choices)
        self.loss_unit = 2.0 ** (math.ceil(math.log2(largest)) - 52) if largest > 0 else 1.0
        orders: dict[int, Integers] = {}  # blocks usually share one list of texts
        for choices in self.choices:
            if id(choices.texts) not in orders:
                orders[id(choices.texts)] = _text_order(choices.texts)
        self.places = tuple(_place(one, self.loss_unit, orders[id(one.texts)]) for one in self.choices)
        functions = link_costs or [lambda before, after: (0,) * len(self.resources)] * (len(self.places) - 1)
        if len(functions) != len(self.places) - 1:
            raise ValueError(f"{len(functions)} link costs for {len(self.places)} places")
        self.links = tuple(
            _links(before.widths, after.widths, function, len(self.resources))
            for before, after, function in zip(self.places, self.places[1:], functions, strict=False)
        )
        reach = sum(np.abs(place.cost_RN).max(initial=0.0) for place in self.places)
        if reach + sum(np.abs(link).max(initial=0.0) for link in self.links) > _LARGEST_EXACT:
            raise ValueError("costs add up to more than 2^53 and would not be exact")

    @property
    def combinations(self) -> int:
        """How many networks there are."""
        return math.prod(len(place) for place in self.places)

    def resource(self, name: str) -> int:
        """The number of a resource.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.resources:
            raise UserError(f"limit on {name!r}: the tables have only {', '.join(self.resources)}")
        return self.resources.index(name)

    def totals(self, rows_KP: Integers) -> tuple[Floats, Floats]:
        """Loss [K] in loss units and costs [R, K] of networks, given as one row number a place."""
        loss_K = np.zeros(len(rows_KP))
        cost_RK = np.zeros((len(self.resources), len(rows_KP)))
        states = [place.states()[rows_KP[:, number]] for number, place in enumerate(self.places)]
        for number, place in enumerate(self.places):
            loss_K += place.loss_N[rows_KP[:, number]]
            cost_RK += place.cost_RN[:, rows_KP[:, number]]
            if number:
                cost_RK += self.links[number - 1][:, states[number - 1], states[number]]
        return loss_K, cost_RK

    def ties(self, rows_KP: Integers) -> Integers:
        """The order of texts of networks, one number a place: what tells equal losses apart, the first place first."""
        return np.stack([place.tie_N[rows_KP[:, number]] for number, place in enumerate(self.places)], axis=1)

    def limits(self, limits: Mapping[str, float]) -> dict[int, float]:
        """Limits in the units of the tables, rounded down, by the resource's number."""
        return {
            self.resource(name): float(math.floor(limit / UNITS.get(name, 1.0) + 1e-3))
            for name, limit in limits.items()
        }

    def in_units(self, number: int, counted: float) -> float:
        """A cost in the units people use."""
        unit = UNITS.get(self.resources[number])
        return counted if unit is None else float(np.round(counted * unit, 12))

    def network(self, rows_P: Integers) -> Network:
        """What one network is, in the units people use."""
        return self.networks(rows_P[None])[0]

    def networks(self, rows_KP: Integers) -> list[Network]:
        """What networks are, in the units people use."""
        loss_K, cost_RK = self.totals(rows_KP)
        sources_KP = np.stack([place.source_N[rows_KP[:, n]] for n, place in enumerate(self.places)], axis=1).tolist()
        found = []
        for loss, cost_R, sources in zip(loss_K.tolist(), cost_RK.T.tolist(), sources_KP, strict=True):
            costs = {name: self.in_units(number, cost_R[number]) for number, name in enumerate(self.resources)}
            texts = tuple(one.texts[source] for one, source in zip(self.choices, sources, strict=True))
            found.append(Network(loss * self.loss_unit, costs, texts, tuple(sources)))
        return found


@dataclass(frozen=True)
class Network:
    """One network of the tables.

    Attributes:
        loss: the sum of its choices' losses.
        costs: by name of the resource, in the units people use (latency in milliseconds).
        texts: its choices, embeddings first.
        rows: their numbers in the tables' :class:`Choices`.
    """

    loss: float
    costs: Mapping[str, float]
    texts: tuple[str, ...]
    rows: tuple[int, ...]


def latency_units(milliseconds: NDArray[np.float64] | Sequence[float]) -> Integers:
    """Latencies as whole numbers of :data:`LATENCY_UNIT_MS`.

    The same operations in another order then cost exactly the same, which sums of milliseconds do not.
    """
    return np.rint(np.asarray(milliseconds, dtype=np.float64) / LATENCY_UNIT_MS).astype(np.int64)


def _text_order(texts: Sequence[str]) -> Integers:
    """The place of each text in their order (by code points)."""
    order = np.empty(len(texts), dtype=np.int64)
    order[np.argsort(np.array(texts, dtype=np.str_), kind="stable")] = np.arange(len(texts))
    return order


def _place(choices: Choices, loss_unit: float, ties: Integers) -> Place:
    usable = np.flatnonzero(np.isfinite(choices.losses))
    order = usable[np.lexsort((ties[usable], choices.widths[usable]))]
    widths, starts = np.unique(choices.widths[order], return_index=True)
    return Place(
        widths.astype(np.int64),
        np.append(starts, len(order)).astype(np.int64),
        np.rint(choices.losses[order] / loss_unit),
        np.ascontiguousarray(choices.costs[order].T.astype(np.float64)),
        ties[order],
        order,
    )


def _links(before: Integers, after: Integers, function: LinkCosts, resources: int) -> Floats:
    costs = np.zeros((resources, len(before), len(after)))
    for i, first in enumerate(before.tolist()):
        for j, second in enumerate(after.tolist()):
            costs[:, i, j] = function(first, second)
    return costs
