"""The trees that proposals mutate: lists of numbers in prefix order, as the paper's code has them.

A linear map is an operator of two arguments here, and its weights are leaves like ``x``, so a tree can be nonsense.
Numbers rather than names, because hundreds of trees are thrown away for one that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS, Expression, X

WEIGHTS = ("weights1", "weights2")
_NAMES = (INPUT, *WEIGHTS, *ACTIVATIONS, *COMBINATIONS)
"""What the numbers below :data:`FIRST_LINEAR` mean. From there on they are linear maps, one for each pair of sizes of a
block."""
LEAVES = 1 + len(WEIGHTS)
"""Numbers below are leaves: 0 is ``x``, 1 and 2 the weights."""
FIRST_BINARY = LEAVES + len(ACTIVATIONS)
"""Numbers from here on take two arguments."""
FIRST_LINEAR = FIRST_BINARY + len(COMBINATIONS)
NUMBERS = {name: number for number, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class Surroundings:
    """What a tree has outside one of its subtrees.

    Attributes:
        weights: which weights, as the sum of their numbers.
        linear_maps: how many of them.
        for_weights: whether the subtree stands where weights should.
    """

    weights: int
    linear_maps: int
    for_weights: bool


def arity(node: int) -> int:
    """How many arguments a node has."""
    return 0 if node < LEAVES else 1 if node < FIRST_BINARY else 2


def end_of(tree: Sequence[int], start: int) -> int:
    """Behind the subtree that begins at a place."""
    open_places, place = 1, start
    while open_places:
        open_places += arity(tree[place]) - 1
        place += 1
    return place


@lru_cache(maxsize=4096)
def numbered(expression: Expression, linear_map: int) -> tuple[int, ...]:
    """The tree of an expression, both of its linear maps being number ``linear_map``, counted from 0."""
    return tuple(FIRST_LINEAR + linear_map if name in LINEAR_MAPS else NUMBERS[name] for name in expression.prefix())


@lru_cache(maxsize=4096)
def surroundings_of(expression: Expression) -> tuple[Surroundings, ...]:
    """For each place of an expression's tree, what is outside the subtree that begins there."""
    tree = numbered(expression, 0)
    found = []
    for start in range(len(tree)):
        end = end_of(tree, start)
        outside = (*tree[:start], *tree[end:])
        weights = sum(number for number in (1, 2) if number in outside)
        linear_maps = sum(node >= FIRST_LINEAR for node in outside)
        found.append(Surroundings(weights, linear_maps, 1 <= tree[start] < LEAVES))
    return tuple(found)


def read(tree: Sequence[int]) -> Expression | None:
    """The expression of a tree; ``None`` if it is none.

    It is none where weights stand instead of a tensor or the other way round, where not each of the two occurs once, or
    where the linear maps are not two of one name.
    """
    if tree.count(1) != 1 or tree.count(2) != 1:
        return None
    linear_maps = [node for node in tree if node >= FIRST_LINEAR]
    if len(linear_maps) != 2 or linear_maps[0] != linear_maps[1]:
        return None
    expression, _ = _read_from(tree, 0)
    return expression


def _read_from(tree: Sequence[int], place: int) -> tuple[Expression | None, int]:
    """The expression that begins at a place, and the place behind it."""
    node = tree[place]
    if node < LEAVES:
        return (None if node else X), place + 1
    first, end = _read_from(tree, place + 1)
    if first is None or node < FIRST_BINARY:
        return None if first is None else Expression(_NAMES[node], (first,)), end
    if node >= FIRST_LINEAR:
        weights = tree[end]
        return Expression(LINEAR_MAPS[weights - 1], (first,)) if 1 <= weights < LEAVES else None, end + 1
    second, end = _read_from(tree, end)
    return None if second is None else Expression(_NAMES[node], (first, second)), end
