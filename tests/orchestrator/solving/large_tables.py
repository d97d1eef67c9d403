"""Large tables, random or built like NAS-BERT's, and HiGHS as the judge of optima."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.solving.tables import Choices, NetworkTables, latency_units
from spaces.nas_bert.space import NasBertSpace

WIDTHS = (128, 192, 256, 384, 512)
RESOURCES = ("parameters", "latency_ms")
_OVERHEAD_MS = {"M": 0.08, "F": 0.05, "S3": 0.12, "S5": 0.13, "S7": 0.14}
_FLOPS_PER_MS = {"M": 40e6, "F": 60e6, "S3": 25e6, "S5": 24e6, "S7": 23e6}


def link_costs(before: int, after: int) -> tuple[int, int]:
    """A linear map with bias where widths differ: weights, and picoseconds of its latency."""
    return (0, 0) if before == after else ((before + 1) * after, 20_000_000 + before * after * 3_000)


def _with_embeddings(blocks: list[Choices]) -> NetworkTables:
    embeddings = Choices(
        ["E128"], np.array([128]), np.zeros(1), np.array([[128 * 31_036, int(latency_units([0.1])[0])]])
    )
    return NetworkTables(RESOURCES, [embeddings, *blocks], [link_costs] * len(blocks))


def random_tables(seed: int, rows: int = 97_650, blocks: int = 4) -> NetworkTables:
    """Losses and costs that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    texts = [f"{number:06d}" for number in range(rows)]
    widths = np.repeat(WIDTHS, rows // len(WIDTHS))
    tables = []
    for _ in range(blocks):
        costs = [rng.integers(34_000, 12_600_000, rows), latency_units(0.1 + 5 * rng.random(rows))]
        tables.append(Choices(texts, widths, rng.random(rows), np.stack(costs, axis=1)))
    return _with_embeddings(tables)


def paper_tables(seed: int, noise: float = 0.01, blocks: int = 4) -> NetworkTables:
    """The paper's space: costs follow the operations, losses fall with them, with noise for each architecture."""
    space = NasBertSpace()
    texts = [str(block) for block in space.enumerate_blocks()]
    parameters = space.block_costs().parameters
    parts, counts = space.block_part_counts()
    milliseconds = [_OVERHEAD_MS[part.name] + space.part_cost(part).flops / _FLOPS_PER_MS[part.name] for part in parts]
    latency = counts @ np.array(milliseconds)
    widths = np.repeat(WIDTHS, len(texts) // len(WIDTHS))
    tables = []
    for number in range(blocks):
        rng = np.random.default_rng((seed, number))
        losses = 0.1 + 0.5 * (1 + 0.1 * number) * np.exp(-parameters / 3e6) + 0.1 * np.exp(-latency / 3)
        losses += noise * rng.standard_normal(len(texts))
        tables.append(Choices(texts, widths, losses, np.stack([parameters, latency_units(latency)], axis=1)))
    return _with_embeddings(tables)


def highs_optimum(tables: NetworkTables, limits: Mapping[str, float]) -> float:
    """The least loss within limits, by HiGHS (scipy's ``milp``).

    One binary a choice, and one a pair of neighbouring widths: a choice of a width needs a pair that ends there and one
    that begins there.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    counted = tables.limits(limits)
    scale = {number: max(limit, 1.0) for number, limit in counted.items()}
    offsets = np.cumsum([0, *(len(place) for place in tables.places)])
    pairs = [(n, i, j) for n, link in enumerate(tables.links) for i, j in np.ndindex(*link.shape[1:])]
    columns = offsets[-1] + len(pairs)
    entries: list[tuple[int, int, float]] = []
    bounds: list[tuple[float, float]] = []

    def row(coefficients: list[tuple[int, float]], low: float, high: float) -> None:
        entries.extend((len(bounds), column, value) for column, value in coefficients)
        bounds.append((low, high))

    for number, place in enumerate(tables.places):
        row([(offsets[number] + choice, 1.0) for choice in range(len(place))], 1, 1)
        for state in range(len(place.widths)):
            own = [(offsets[number] + choice, 1.0) for choice in range(place.starts[state], place.starts[state + 1])]
            for before, side in ((number - 1, 2), (number, 1)):
                used = [
                    (offsets[-1] + k, -1.0) for k, pair in enumerate(pairs) if pair[0] == before and pair[side] == state
                ]
                if used:
                    row(own + used, 0, 0)
    for number, limit in counted.items():
        costs = np.concatenate([place.cost_RN[number] for place in tables.places])
        between = [tables.links[n][number, i, j] for n, i, j in pairs]
        values = np.concatenate([costs, between]) / scale[number]
        row([(column, float(value)) for column, value in enumerate(values) if value], -np.inf, limit / scale[number])
    lows, highs = zip(*bounds, strict=True)
    rows, at, values = zip(*entries, strict=True)
    matrix = coo_array((values, (rows, at)), shape=(len(bounds), columns)).tocsr()
    losses = np.concatenate([place.loss_N for place in tables.places]) * tables.loss_unit
    found = milp(
        np.concatenate([losses, np.zeros(len(pairs))]),
        integrality=np.ones(columns),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, lows, highs),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success, found.message
    return float(found.fun)
