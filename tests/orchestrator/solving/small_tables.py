"""Small random tables with links between widths, and the answers of brute force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from orchestrator.solving.tables import Choices, NetworkTables

RESOURCES = ("parameters", "latency_ms", "flops")


def make_tables(
    seed: int, places: int = 4, most: int = 6, widths: int = 3, resources: int = 2, grid: int | None = 8
) -> NetworkTables:
    """Tables with few rows, many ties (losses on a grid of 1/8, unless ``grid`` is None) and random links."""
    rng = np.random.default_rng(seed)
    choices = []
    for _ in range(places):
        count = int(rng.integers(1, most + 1))
        texts = [f"{'abcde'[int(rng.integers(5))]}{number}" for number in range(count)]
        losses = rng.random(count) if grid is None else rng.integers(0, grid, count) / 8
        costs = rng.integers(0, 20, (count, resources))
        choices.append(Choices(texts, rng.integers(0, widths, count), losses, costs))
    links = [rng.integers(0, 6, (widths, widths, resources)) for _ in range(places - 1)]
    functions = [(lambda before, after, table=table: table[before, after].tolist()) for table in links]
    return NetworkTables(RESOURCES[:resources], choices, functions)


def all_networks(tables: NetworkTables) -> NDArray[np.int64]:
    """Every network, as rows of each place."""
    return np.array(list(product(*(range(len(place)) for place in tables.places))))


def best_by_brute_force(tables: NetworkTables, limits: Mapping[str, float], top: int) -> list[tuple[str, ...]]:
    """The texts of the best networks, the lowest loss first, ties by texts."""
    rows = all_networks(tables)
    losses, costs = tables.totals(rows)
    fits = np.ones(len(rows), dtype=bool)
    for number, limit in tables.limits(limits).items():
        fits &= costs[number] <= limit
    found = [tables.network(row) for row in rows[fits]]
    keyed = sorted(zip(losses[fits].tolist(), (one.texts for one in found), strict=True))
    return [texts for _, texts in keyed[:top]]


def front_by_brute_force(
    tables: NetworkTables, objectives: Sequence[str], limits: Mapping[str, float] | None = None
) -> dict[tuple[float, ...], tuple[str, ...]]:
    """The points of the front within limits, and the first network in the order of texts that has each."""
    rows = all_networks(tables)
    costs = tables.totals(rows)[1]
    for number, limit in tables.limits(limits or {}).items():
        rows, costs = rows[costs[number] <= limit], costs[:, costs[number] <= limit]
    points = values_of(tables, rows, objectives)
    first: dict[tuple[float, ...], tuple[str, ...]] = {}
    for point, network in zip(map(tuple, points.tolist()), tables.networks(rows), strict=True):
        first[point] = min(first.get(point, network.texts), network.texts)
    return {
        point: texts
        for point, texts in first.items()
        if not ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
    }


def values_of(tables: NetworkTables, rows: NDArray[np.int64], objectives: Sequence[str]) -> NDArray[np.float64]:
    """The objectives of networks, in the units of the tables."""
    losses, costs = tables.totals(rows)
    return np.stack([losses if name == "loss" else costs[tables.resource(name)] for name in objectives], axis=1)
