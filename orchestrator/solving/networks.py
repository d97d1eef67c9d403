"""From a space and its block tables to the tables that are solved, and back to architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.latency_table import LatencyTable
from orchestrator.solving.tables import Choices, Floats, Integers, Network, NetworkTables, latency_units
from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace, Part

LossKind = Literal["raw", "normalised"]
EmbeddingRule = Literal["ladder", "any"] | int
"""``ladder``: by NAS-BERT's hand-set table; ``any``: free, which without a loss of its own means the cheapest; or a
size."""

_ANY_SIZE = 10**18


@dataclass(frozen=True)
class BlockTable:
    """The scored architectures of one block.

    Attributes:
        texts: of the architectures.
        widths: int64 [N].
        losses: float64 [N].
        parameters: int64 [N], of their operations.
        flops: int64 [N], of their operations.
        latency_ms: float64 [N], of their operations; None where nothing was measured.
    """

    texts: Sequence[str]
    widths: Integers
    losses: Floats
    parameters: Integers
    flops: Integers
    latency_ms: NDArray[np.float64] | None


@dataclass(frozen=True)
class SolvableNetworks:
    """Tables to solve, for one choice of embedding sizes or several.

    Attributes:
        tables_for: the tables of an embedding size; of all sizes for None.
        architecture: the architecture of a network.
        ladder: the embedding size that suits the limits.
    """

    tables_for: Callable[[int | None], NetworkTables]
    architecture: Callable[[Network], Architecture]
    ladder: Callable[[Mapping[str, float]], int | None]

    def by_rule(self, rule: EmbeddingRule, limits: Mapping[str, float]) -> NetworkTables:
        """The tables of the embedding sizes that a rule leaves within limits."""
        if rule == "ladder":
            return self.tables_for(self.ladder(limits))
        return self.tables_for(None if rule == "any" else rule)


def solvable(
    space: BlockwiseSpace[Any],
    blocks: Sequence[BlockTable],
    sequence_length: int,
    latency: LatencyTable | None,
) -> SolvableNetworks:
    """Make block tables solvable.

    Args:
        space: of the blocks.
        blocks: a table for each block, in order.
        sequence_length: behind the FLOPs.
        latency: the latency table behind the blocks' latencies; None: there is none.
    """
    with_latency = latency is not None and all(block.latency_ms is not None for block in blocks)
    counter = _Counter(space, sequence_length, latency if with_latency else None)
    places = [counter.block(block, last=number == len(blocks) - 1) for number, block in enumerate(blocks)]
    made: dict[int | None, NetworkTables] = {}

    def tables_for(embedding_size: int | None) -> NetworkTables:
        sizes = list(space.embedding_choices()) if embedding_size is None else [embedding_size]
        if not set(sizes) <= set(space.embedding_choices()):
            expected = ", ".join(map(str, space.embedding_choices()))
            raise UserError(f"embedding size: found {embedding_size}, expected one of the space's: {expected}")
        if embedding_size not in made:
            all_places = [counter.embeddings(sizes), *places]
            made[embedding_size] = NetworkTables(counter.resources, all_places, [counter.link] * len(blocks))
        return made[embedding_size]

    def architecture(network: Network) -> Architecture:
        parsed = [space.parse_block(text) for text in network.texts[1:]]
        assembled: Architecture = space.assemble(int(network.texts[0][1:]), parsed)
        return assembled

    return SolvableNetworks(tables_for, architecture, lambda limits: ladder_size(space, limits))


def ladder_size(space: BlockwiseSpace[Any], limits: Mapping[str, float]) -> int:
    """The embedding size that the ladder gives to networks as large as the limits allow.

    Args:
        space: names the sizes and the ladder.
        limits: ``parameters`` and ``encoder_parameters`` count; without them the size is that of the largest networks.
    """
    choices = sorted(space.embedding_choices())
    if "encoder_parameters" not in limits:
        return space.embedding_ladder(int(limits.get("parameters", _ANY_SIZE)))
    sizes = []
    for size in choices:
        embeddings = sum(space.part_cost(part).parameters for part in space.embedding_parts(size))
        whole = min(limits["encoder_parameters"] + embeddings, limits.get("parameters", _ANY_SIZE))
        if space.embedding_ladder(int(whole)) >= size:
            sizes.append(size)
    return max(sizes, default=choices[0])


def ladder_rungs(space: BlockwiseSpace[Any]) -> list[tuple[int, float]]:
    """The embedding sizes that the ladder names, rising, each with the largest network it suits (infinite: any)."""
    rungs: list[tuple[int, float]] = []
    begin = 0
    while begin < _ANY_SIZE:
        size = space.embedding_ladder(begin)
        low, high = begin, _ANY_SIZE
        while low < high:  # the largest network of this rung
            middle = (low + high + 1) // 2
            low, high = (middle, high) if space.embedding_ladder(middle) == size else (low, middle - 1)
        rungs.append((size, float("inf") if low == _ANY_SIZE else float(low)))
        begin = low + 1
    return rungs


class _Counter:
    """Costs of the places and of what lies between them, in the units of the tables."""

    def __init__(self, space: BlockwiseSpace[Any], sequence_length: int, latency: LatencyTable | None) -> None:
        self._space, self._sequence_length, self._latency = space, sequence_length, latency
        self.resources = ["parameters", "encoder_parameters", "flops"] + (["latency_ms"] if latency else [])

    def embeddings(self, sizes: Sequence[int]) -> Choices:
        """The embeddings of each size; what a network costs once is counted here too."""
        constant_ms = self._latency.constant_ms if self._latency else 0.0
        costs = [self._parts(self._space.embedding_parts(size), constant_ms) for size in sizes]
        texts = [f"E{size}" for size in sizes]
        return Choices(texts, np.array(sizes), np.zeros(len(sizes)), np.array(costs, dtype=np.int64))

    def link(self, before: int, after: int | None) -> list[int]:
        """What lies between two widths."""
        return self._parts(self._space.link_parts(before, after))

    def block(self, block: BlockTable, last: bool) -> Choices:
        """A block's architectures; behind the last block, with the map that ends the network."""
        columns = [block.parameters, block.parameters, block.flops]
        if self._latency:
            assert block.latency_ms is not None
            columns.append(latency_units(block.latency_ms))
        costs = np.stack(columns, axis=1).astype(np.int64)
        if last:
            for width in np.unique(block.widths).tolist():
                costs[block.widths == width] += np.array(self.link(width, None), dtype=np.int64)
        return Choices(block.texts, block.widths, block.losses, costs)

    def _parts(self, parts: Sequence[Part], constant_ms: float = 0.0) -> list[int]:
        counted = [self._space.part_cost(part, self._sequence_length) for part in parts]
        costs = [
            sum(one.parameters for one in counted),
            sum(one.encoder_parameters for one in counted),
            sum(one.flops for one in counted),
        ]
        if self._latency:
            costs.append(int(latency_units([self._latency.parts_ms(parts) + constant_ms])[0]))
        return costs
