"""Counting, drawing and ordering valid expressions, without walking through them (paper notes, section 2.6).

How many trees there are follows from the root's operator and from how many trees of a smaller size can stand below it:
dynamic programming over the nodes, the height and what linear maps a tree contains. The same sums give the tree at any
place of one fixed order, so that drawing uniformly is drawing a place, and enumeration is walking through the places.

A tree's *kind* says where it runs:

* ``serial``: linear2 above linear1 with nothing but activations between them: at any inner width;
* ``mixed``: linear2 above linear1, with an add, mul or max between them whose other operand is as wide as the hidden
  size: where cropping or padding gives the inner width;
* ``parallel``: linear2 beside linear1: only where the inner width is the hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import attrgetter
from typing import Literal, NamedTuple

from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS, Expression, X
from spaces.efficient_bert.rules import TreeLimits, Widths

TreeKind = Literal["serial", "mixed", "parallel"]
SERIAL_KINDS: tuple[TreeKind, ...] = ("serial", "mixed")
ALL_KINDS: tuple[TreeKind, ...] = (*SERIAL_KINDS, "parallel")
_Content = Literal["nothing", "first", "mixed_first", "second", "serial", "mixed", "parallel"]
"""The linear maps in a tree: none, linear1 (with or without a combination above it), linear2, or both."""
_Root = Literal["input", "activation", "linear", "combination"]

_BELOW_LINEAR: dict[_Content, tuple[tuple[str, _Content], ...]] = {
    "first": (("linear1", "nothing"),),
    "second": (("linear2", "nothing"),),
    "serial": (("linear2", "first"),),
    "mixed": (("linear2", "mixed_first"),),
}
"""Which linear map, on what content, gives a content."""
_BELOW_COMBINATION: dict[_Content, tuple[tuple[_Content, _Content], ...]] = {
    "nothing": (("nothing", "nothing"),),
    "mixed_first": tuple(pair for one in ("first", "mixed_first") for pair in (("nothing", one), (one, "nothing"))),
    "second": (("nothing", "second"), ("second", "nothing")),
    "serial": (("nothing", "serial"), ("serial", "nothing")),
    "mixed": (("nothing", "mixed"), ("mixed", "nothing")),
    "parallel": (
        ("nothing", "parallel"),
        ("parallel", "nothing"),
        ("first", "second"),
        ("mixed_first", "second"),
    ),
}
"""Which contents of the two operands give a content; the weights of linear1 come first (rule 4)."""


@dataclass(frozen=True)
class Alphabet:
    """The operators that trees are made of.

    Attributes:
        activations: of one argument.
        combinations: of two arguments.
        equal_activations: whether an activation of x may stand beside the same one (rule 7 forbids it).
    """

    activations: tuple[str, ...] = ACTIVATIONS
    combinations: tuple[str, ...] = COMBINATIONS
    equal_activations: bool = False


_MOST_KEPT = 12
"""Nodes up to which the ways to put trees together are kept; of larger ones there are too many to keep."""
FORM_ALPHABET = Alphabet(("gelu",), ("add",), equal_activations=True)
"""Trees of it are forms: gelu stands for any activation, add for any combination."""


class _Trees(NamedTuple):
    """The trees of one size, height and content, those with one kind of root left out."""

    nodes: int
    height: int
    content: _Content
    without: _Root | None = None


class _Way(NamedTuple):
    """A way to put trees together: any of the operators on any of the trees.

    Attributes:
        root: kind of the operator.
        operators: any of them.
        below: what each argument can be.
        different: whether the two arguments have to differ.
    """

    root: _Root
    operators: tuple[str, ...]
    below: tuple[_Trees, ...]
    different: bool = False


class TreeCounter:
    """All valid trees within limits, in one order: by nodes, height and kind, then by root, operands and operators.

    Args:
        limits: of nodes and height; whether trees may be parallel is asked at every call instead.
        alphabet: the operators.
    """

    def __init__(self, limits: TreeLimits, alphabet: Alphabet | None = None) -> None:
        self._limits = limits
        self._alphabet = alphabet or Alphabet()
        self._counted: dict[_Trees, int] = {}
        self._known_ways: dict[_Trees, list[tuple[_Way, int]]] = {}
        self._totals: dict[tuple[TreeKind, ...], int] = {}

    def count(self, kinds: Sequence[TreeKind]) -> int:
        """How many trees there are of some kinds."""
        key = tuple(kinds)
        if key not in self._totals:
            self._totals[key] = sum(self._count(trees) for trees in self._groups(key))
        return self._totals[key]

    def by_nodes(self, kinds: Sequence[TreeKind]) -> dict[int, int]:
        """How many trees there are of each number of nodes, where there are any."""
        return self._sums(kinds, attrgetter("nodes"))

    def by_height(self, kinds: Sequence[TreeKind]) -> dict[int, int]:
        """How many trees there are of each height, where there are any."""
        return self._sums(kinds, attrgetter("height"))

    def at(self, index: int, kinds: Sequence[TreeKind]) -> Expression:
        """The tree at a place of the order, from 0.

        Raises:
            IndexError: there is no such place.
        """
        if index < 0:
            raise IndexError(index)
        left = index
        for trees in self._groups(kinds):
            count = self._count(trees)
            if left < count:
                return self._at(trees, left)
            left -= count
        raise IndexError(index)

    def place(self, tree: Expression, kinds: Sequence[TreeKind]) -> int:
        """The place of a tree in the order, the inverse of :meth:`at`.

        Raises:
            ValueError: it is none of the trees.
        """
        own = _trees_of(tree)
        before = 0
        for trees in self._groups(kinds):
            if trees == own:
                return before + self._place(tree, trees)
            before += self._count(trees)
        raise ValueError(f"{tree} is none of the trees that are counted")

    def sample(self, rng: random.Random, kinds: Sequence[TreeKind]) -> Expression:
        """Draw a tree so that all are alike."""
        return self.at(rng.randrange(self.count(kinds)), kinds)

    def enumerate(self, kinds: Sequence[TreeKind]) -> Iterator[Expression]:
        """Every tree once, in order."""
        return (self.at(index, kinds) for index in range(self.count(kinds)))

    def _groups(self, kinds: Sequence[TreeKind]) -> Iterator[_Trees]:
        for nodes in range(1, self._limits.max_nodes + 1):
            for height in range(self._limits.min_height, min(self._limits.max_height, nodes - 1) + 1):
                for kind in kinds:
                    yield _Trees(nodes, height, kind)

    def _sums(self, kinds: Sequence[TreeKind], key: Callable[[_Trees], int]) -> dict[int, int]:
        sums: dict[int, int] = {}
        for trees in self._groups(kinds):
            count = self._count(trees)
            if count:
                sums[key(trees)] = sums.get(key(trees), 0) + count
        return dict(sorted(sums.items()))

    def _count(self, trees: _Trees) -> int:
        if trees not in self._counted:
            self._counted[trees] = sum(count for _, count in self._ways(trees))
        return self._counted[trees]

    def _ways(self, trees: _Trees) -> Iterable[tuple[_Way, int]]:
        """Every way to such trees, in order, with how many trees it gives; only those that give any."""
        if trees.nodes > _MOST_KEPT:
            return self._find_ways(trees)
        if trees not in self._known_ways:
            self._known_ways[trees] = list(self._find_ways(trees))
        return self._known_ways[trees]

    def _find_ways(self, trees: _Trees) -> Iterator[tuple[_Way, int]]:
        nodes, height, content, without = trees
        if (nodes, height, content) == (1, 0, "nothing") and without != "input":
            yield _Way("input", (INPUT,), ()), 1
        if nodes < 2 or height < 1 or height >= nodes:
            return
        if without != "activation":
            below = (_Trees(nodes - 1, height - 1, content, "activation"),)
            yield from self._counted_way(_Way("activation", self._alphabet.activations, below))
        if without != "linear" and nodes > 2:
            for operator, content_below in _BELOW_LINEAR.get(content, ()):
                below = (_Trees(nodes - 2, height - 1, content_below, "linear"),)
                yield from self._counted_way(_Way("linear", (operator,), below))
        if without != "combination":
            for left, right in _operand_sizes(nodes - 1, height - 1):
                for first, second in _BELOW_COMBINATION.get(content, ()):
                    operands = (_Trees(*left, first), _Trees(*right, second))
                    way = _Way("combination", self._alphabet.combinations, operands, self._must_differ(*operands))
                    yield from self._counted_way(way)

    def _must_differ(self, first: _Trees, second: _Trees) -> bool:
        """Whether rule 7 forbids equal operands: both are x, or both an activation of x."""
        if first != second or first.content != "nothing":
            return False
        return first.nodes == 1 or (first.nodes == 2 and not self._alphabet.equal_activations)

    def _counted_way(self, way: _Way) -> Iterator[tuple[_Way, int]]:
        count = len(way.operators) * reduce(int.__mul__, self._choices(way), 1)
        if count:
            yield way, count

    def _choices(self, way: _Way) -> list[int]:
        """How many trees each argument can be, given those before it."""
        counts = [self._count(trees) for trees in way.below]
        return [counts[0], max(counts[1] - 1, 0)] if way.different else counts

    def _at(self, trees: _Trees, index: int) -> Expression:
        for way, count in self._ways(trees):
            if index < count:
                return self._made(way, index)
            index -= count
        raise IndexError(index)

    def _made(self, way: _Way, index: int) -> Expression:
        """The tree at a place among those that one way gives."""
        if way.root == "input":
            return X
        places = []
        for choices in reversed(self._choices(way)):
            index, place = divmod(index, choices)
            places.append(place)
        places.reverse()
        if way.different and places[1] >= places[0]:
            places[1] += 1
        arguments = (self._at(trees, place) for trees, place in zip(way.below, places, strict=True))
        return Expression(way.operators[index], tuple(arguments))

    def _place(self, tree: Expression, trees: _Trees) -> int:
        """The place of a tree among those of its size, height and content."""
        before = 0
        for way, count in self._ways(trees):
            if tree.operator in way.operators and all(
                _trees_of(argument) == below._replace(without=None)
                for argument, below in zip(tree.arguments, way.below, strict=True)
            ):
                return before + self._place_within(tree, way)
            before += count
        raise ValueError(f"{tree} is none of the trees that are counted")

    def _place_within(self, tree: Expression, way: _Way) -> int:
        places = [self._place(argument, below) for argument, below in zip(tree.arguments, way.below, strict=True)]
        if way.different:
            if places[0] == places[1]:
                raise ValueError(f"{tree} has two equal operands")
            places[1] -= places[1] > places[0]
        index = way.operators.index(tree.operator)
        for place, choices in zip(places, self._choices(way), strict=True):
            index = index * choices + place
        return index


def _operand_sizes(nodes: int, height: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Nodes and heights of two operands that have so many nodes together, the higher one of such a height."""
    for first in range(1, nodes):
        for first_height in range(min(first - 1, height) + 1):
            second = nodes - first
            lower = height if first_height < height else 0
            for second_height in range(lower, min(second - 1, height) + 1):
                yield (first, first_height), (second, second_height)


@lru_cache(maxsize=65_536)
def _trees_of(tree: Expression) -> _Trees:
    return _Trees(tree.nodes, tree.height, _content(tree))


def _content(tree: Expression) -> _Content:
    if tree.operator == INPUT:
        return "nothing"
    found = tuple(_content(argument) for argument in tree.arguments)
    if tree.operator in ACTIVATIONS:
        return found[0]
    if tree.operator in LINEAR_MAPS:
        fitting: tuple[_Content, ...] = tuple(
            content for content, ways in _BELOW_LINEAR.items() if (tree.operator, found[0]) in ways
        )
    else:
        fitting = tuple(content for content, pairs in _BELOW_COMBINATION.items() if found in pairs)
    if not fitting:
        raise ValueError(f"{tree} has its linear maps in an order that no valid expression has")
    return fitting[0]


@lru_cache(maxsize=64)
def tree_counter(limits: TreeLimits, alphabet: Alphabet | None = None) -> TreeCounter:
    """The counter of some limits, made once."""
    return TreeCounter(limits, alphabet)


@lru_cache(maxsize=1024)
def kinds_that_run(widths: Widths, parallel: bool) -> tuple[TreeKind, ...]:
    """The kinds of trees that run at some widths (rule 9).

    Args:
        widths: of the block's feed-forwards.
        parallel: whether parallel trees are wanted at all.
    """
    kinds: list[TreeKind] = ["serial"]
    fits = widths.inner <= widths.hidden if widths.rule == "crop" else widths.inner >= widths.hidden
    if fits:
        kinds.append("mixed")
    if parallel and widths.inner == widths.hidden:
        kinds.append("parallel")
    return tuple(kinds)
