"""The architectures of a block that are still alive, and which of them a round of shrinking removes (NAS-BERT, 3.3).

Shape legend: N block architectures of the space, in the order of :meth:`~spaces.space.BlockwiseSpace.enumerate_blocks`.

All of this is arithmetic on arrays over all N architectures: it needs neither PyTorch nor a supernet, and is the same
on every machine for the same seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spaces.space import BlockwiseSpace, SamplingLaw
from trainers.errors import TrainingInputError

LatencyRule = Literal["two_sided", "upper", "none"]
Indices = NDArray[np.int64]

ENUMERABLE = 5_000_000
"""Most architectures of a block that a population can hold."""


@dataclass(frozen=True)
class RemovalRules:
    """How many and which architectures of a bin die in a round.

    Attributes:
        evaluate: ``sample`` evaluates ``sample`` architectures of each bin (all, if fewer are left), as the paper does;
            ``all`` evaluates every living one.
        sample: E.
        remove: ``half_sampled`` removes the E / 2 worst of the evaluated (the paper's R), ``half_bin`` the worse half
            of the bin, which takes ``evaluate: all``.
        keep: m; no bin falls below it.
        by: ``architectures`` judges each by its own loss; ``operations`` judges an operation at a layer by the mean
            loss of the evaluated architectures that have it there (the paper's ablation PS-op).
        operation_share: share of a bin's architectures that a round by operations removes at least.
    """

    evaluate: Literal["sample", "all"] = "sample"
    sample: int = 2000
    remove: Literal["half_sampled", "half_bin"] = "half_sampled"
    keep: int = 10
    by: Literal["architectures", "operations"] = "architectures"
    operation_share: float = 0.3

    def evaluated(self, live: int) -> int:
        """How many of a bin's living architectures are evaluated."""
        if live <= self.keep:
            return 0
        return live if self.evaluate == "all" else min(live, self.sample)

    def removed(self, live: int) -> int:
        """How many of a bin's living architectures die (by operations: at least)."""
        if live <= self.keep:
            return 0
        if self.by == "operations":
            wanted = math.ceil(self.operation_share * live)
        else:
            wanted = (live if self.remove == "half_bin" else min(live, self.sample)) // 2
        return min(wanted, live - self.keep)


@dataclass(frozen=True)
class BinRound:
    """What a round did to one bin of one block.

    Attributes:
        bin: from 1.
        live_before: architectures before the round.
        losses: of the evaluated, ascending.
        removed: architectures that died.
        dropped_operations: with PS-op, what was dropped, such as ``layer 2: 512 F``.
    """

    bin: int
    live_before: int
    losses: NDArray[np.float64]
    removed: int
    dropped_operations: tuple[str, ...] = ()


def assign_bins(parameters_N: Indices, latencies_N: NDArray[Any], bins: int, rule: LatencyRule) -> tuple[Indices, Any]:
    """Sort architectures into bins by parameters, and find those that are too slow (or fast) for their bin.

    With aᵗ the architecture of most parameters, p_b = b/B p(aᵗ) and l_b = b/B l(aᵗ), bin b holds p_{b-1} < p <= p_b;
    the paper's rule ``two_sided`` keeps l_{b-1} < l <= l_b in it, ``upper`` all of l <= l_b.

    Args:
        parameters_N: weights of each block architecture.
        latencies_N: in any unit; whole numbers (FLOPs) or milliseconds.
        bins: B.
        rule: on latencies.

    Returns:
        The bin of each architecture, from 1 to B, and whether the latency rule allows it.
    """
    largest = int(np.argmax(parameters_N))
    bins_N = np.maximum(1, -(-parameters_N * bins // parameters_N[largest])).astype(np.int64)
    upper_N = latencies_N * bins <= bins_N * latencies_N[largest]
    lower_N = latencies_N * bins > (bins_N - 1) * latencies_N[largest]
    if rule == "none":
        return bins_N, np.ones(len(bins_N), dtype=bool)
    return bins_N, upper_N if rule == "upper" else upper_N & lower_N


def rounds_ahead(live: Sequence[int], rules: RemovalRules) -> list[int]:
    """What is evaluated in each round from here on, until no bin has more than ``keep``.

    Args:
        live: architectures of each bin, of as many blocks as there are.
        rules: by operations, rounds and evaluations are the most there can be.
    """
    found = []
    counts = list(live)
    while evaluated := sum(map(rules.evaluated, counts)):
        found.append(evaluated)
        counts = [count - rules.removed(count) for count in counts]
    return found


class Population:
    """The living architectures of every block.

    Args:
        space: whose block architectures live or die.
        bins_N: as :func:`assign_bins` gives them.
        allowed_N: likewise; what is not allowed never lives.
        rules: of removal.
        law: by which living architectures are drawn.
        seed: of the samples that are evaluated.

    Raises:
        TrainingInputError: the space is too large to enumerate, or nothing is allowed.
    """

    def __init__(
        self,
        space: BlockwiseSpace[Any],
        bins_N: Indices,
        allowed_N: NDArray[np.bool_],
        rules: RemovalRules,
        law: SamplingLaw = "architectures",
        seed: int = 0,
    ) -> None:
        if not allowed_N.any():
            raise TrainingInputError(
                "supernet.shrinking.latency_rule: no architecture of a block has a latency within its size bin; "
                "set it to upper or none, or use fewer bins"
            )
        self.space = space
        self.bins_N = bins_N
        self.bins = int(bins_N.max())
        self.allowed_N = allowed_N
        self.rules = rules
        self.seed = seed
        self._alive = np.tile(allowed_N, (space.num_blocks, 1))
        self._weights_N = law_weights(space, law)
        self._operations: _OperationTable | None = None
        self._drawing: dict[int, tuple[Indices, NDArray[np.float64]]] = {}
        self._families: tuple[int, Indices] | None = None

    @classmethod
    def of_all(cls, space: BlockwiseSpace[Any], law: SamplingLaw) -> Population:
        """All architectures of a space, none of which will die.

        Raises:
            TrainingInputError: the space is too large to enumerate.
        """
        check_enumerable(space, "supernet.shared_layers")
        count = space.block_cardinality()
        return cls(space, np.ones(count, dtype=np.int64), np.ones(count, dtype=bool), RemovalRules(), law)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Who lives, ``[blocks, N]``; a copy."""
        return self._alive.copy()

    def restore(self, alive: NDArray[np.bool_]) -> None:
        """Go on with the living of a checkpoint."""
        self._alive = alive.copy()
        self._drawing.clear()

    def live_counts(self, block: int) -> NDArray[np.int64]:
        """Living architectures of each bin of a block, ``[bins]``."""
        return np.bincount(self.bins_N[self._alive[block]], minlength=self.bins + 1)[1:]

    @property
    def done(self) -> bool:
        """Whether no bin of any block has more than it keeps."""
        return all(bool((self.live_counts(block) <= self.rules.keep).all()) for block in range(self.space.num_blocks))

    def draw(self, block: int, rng: random.Random) -> Any:
        """A living architecture of a block, drawn by the law."""
        return self.space.block_at(self._draw(block, rng))

    def draw_family(self, block: int, rng: random.Random, count: int, shared_layers: int) -> list[Any]:
        """Several living architectures of a block whose hidden size and first layers are the same.

        Each by itself follows the law; together they are as alike as their common beginning makes them.

        Args:
            block: from 0.
            rng: the only source of chance.
            count: how many; some may be equal.
            shared_layers: how many layers they have in common (all, where an architecture has no more).
        """
        if self._families is None or self._families[0] != shared_layers:
            self._families = shared_layers, beginnings(self.space, shared_layers)
        beginnings_N = self._families[1]
        first = self._draw(block, rng)
        living = np.flatnonzero(self._alive[block] & (beginnings_N == beginnings_N[first]))
        sums = np.cumsum(self._weights_N[living])
        drawn = [first, *(_pick(living, sums, rng) for _ in range(count - 1))]
        return [self.space.block_at(index) for index in drawn]

    def _draw(self, block: int, rng: random.Random) -> int:
        if block not in self._drawing:
            living = np.flatnonzero(self._alive[block])
            self._drawing[block] = living, np.cumsum(self._weights_N[living])
        return _pick(*self._drawing[block], rng)

    def to_evaluate(self, round_number: int, block: int) -> Indices:
        """The architectures of a block that a round has to evaluate, ascending; the same wherever it is asked."""
        chosen = []
        for number in range(1, self.bins + 1):
            living = self._members(block, number)
            wanted = self.rules.evaluated(len(living))
            if wanted < len(living):
                rng = np.random.default_rng((self.seed, round_number, block, number))
                living = rng.choice(living, wanted, replace=False)
            chosen.append(living)
        return np.sort(np.concatenate(chosen))

    def shrink(self, block: int, evaluated: Indices, losses: NDArray[np.float64]) -> list[BinRound]:
        """Remove the worst of a block.

        Args:
            block: from 0.
            evaluated: what :meth:`to_evaluate` gave.
            losses: of each of them; a loss that is no number counts as the worst.

        Returns:
            What happened to each bin, in order.
        """
        losses = np.where(np.isnan(losses), np.inf, losses)
        report = []
        for number in range(1, self.bins + 1):
            chosen = self.bins_N[evaluated] == number
            report.append(self._shrink_bin(block, number, evaluated[chosen], losses[chosen]))
        self._drawing.pop(block, None)
        return report

    def _members(self, block: int, number: int) -> Indices:
        return np.flatnonzero(self._alive[block] & (self.bins_N == number))

    def _shrink_bin(self, block: int, number: int, evaluated: Indices, losses: NDArray[np.float64]) -> BinRound:
        living = self._members(block, number)
        count = self.rules.removed(len(living))
        order = np.lexsort((evaluated, losses))
        dropped: tuple[str, ...] = ()
        if self.rules.by == "operations" and count:
            dying, dropped = self._judge_operations(living, evaluated[order], losses[order], count)
        else:
            dying = evaluated[order][len(order) - count :]
        self._alive[block, dying] = False
        return BinRound(number, len(living), losses[order], len(dying), dropped)

    def _judge_operations(
        self, living: Indices, ranked: Indices, losses: NDArray[np.float64], wanted: int
    ) -> tuple[Indices, tuple[str, ...]]:
        """The living that die with the worst operations: at least ``wanted``, and never more than may die.

        An operation without which too few would live is passed over. Where the others do not suffice, the worst of the
        evaluated (``ranked``, best first) die with them.
        """
        if self._operations is None:
            self._operations = _OperationTable(self.space)
        table = self._operations
        dies = np.zeros(len(living), dtype=bool)
        dropped = []
        for layer, operation in table.worst_first(ranked, losses):
            if dies.sum() >= wanted:
                break
            joined = dies | (table.layers_NL[living, layer] == operation)
            if joined.sum() > dies.sum() and len(living) - joined.sum() >= self.rules.keep:
                dies = joined
                dropped.append(f"layer {layer + 1}: {table.names[operation]}")
        for index in ranked[::-1]:
            if dies.sum() >= wanted:
                break
            dies[np.searchsorted(living, index)] = True
        return living[dies], tuple(dropped)


class _OperationTable:
    """Which operation each block architecture has at each layer, the identity included."""

    def __init__(self, space: BlockwiseSpace[Any]) -> None:
        paths = [
            [f"{part.size} {part.name}" for part in space.parts_of_block(block)] for block in space.enumerate_blocks()
        ]
        self.names = ["identity", *sorted({name for path in paths for name in path})]
        number = {name: place for place, name in enumerate(self.names)}
        self.layers_NL = np.zeros((len(paths), max(map(len, paths))), dtype=np.int64)
        for place, path in enumerate(paths):
            self.layers_NL[place, : len(path)] = [number[name] for name in path]

    def worst_first(self, evaluated: Indices, losses: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Every (layer, operation) of the evaluated, the one of the highest mean loss first."""
        scored = []
        for layer in range(self.layers_NL.shape[1]):
            at_layer = self.layers_NL[evaluated, layer]
            counts = np.bincount(at_layer, minlength=len(self.names))
            sums = np.bincount(at_layer, weights=losses, minlength=len(self.names))
            scored += [(-sums[o] / counts[o], layer, int(o)) for o in np.flatnonzero(counts)]
        return [(layer, operation) for _, layer, operation in sorted(scored)]


def _pick(living: Indices, sums: NDArray[np.float64], rng: random.Random) -> int:
    """One of the living, by the running sums of their weights."""
    place = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    return int(living[min(place, len(living) - 1)])


def beginnings(space: BlockwiseSpace[Any], layers: int) -> Indices:
    """A number for each block architecture, ``[N]``: equal where hidden size and first layers are."""
    numbers: dict[Any, int] = {}
    found = np.empty(space.block_cardinality(), dtype=np.int64)
    for place, block in enumerate(space.enumerate_blocks()):
        beginning = (space.block_width(block), tuple(space.parts_of_block(block)[:layers]))
        found[place] = numbers.setdefault(beginning, len(numbers))
    return found


def check_enumerable(space: BlockwiseSpace[Any], key: str = "supernet.shrinking") -> None:
    """Make sure that a space's block architectures can be kept in a table.

    Args:
        space: to be enumerated.
        key: of the recipe that asks for it.

    Raises:
        TrainingInputError: there are too many.
    """
    count = space.block_cardinality()
    if count > ENUMERABLE:
        raise TrainingInputError(
            f"{key}: a block of the space has {count:,} architectures, expected at most {ENUMERABLE:,} for this; use "
            f"fewer layers a block, sizes or operations (space.options), or leave the key out"
        )


def law_weights(space: BlockwiseSpace[Any], law: SamplingLaw) -> NDArray[np.float64]:
    """Relative probability of each block architecture under a law, ``[N]``.

    By ``operations``, a block of k operations comes up as often as there are ways to lay k of L layers.
    """
    if law == "architectures":
        return np.ones(space.block_cardinality())
    _, counts = space.block_part_counts()
    depths_N = counts.sum(1)
    layers = int(depths_N.max())
    ways = np.array([math.comb(layers, depth) for depth in range(layers + 1)], dtype=np.float64)
    weights_N: NDArray[np.float64] = ways[depths_N]
    return weights_N
