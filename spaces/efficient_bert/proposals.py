"""The proposal distribution of the paper's code (paper notes, section 2.7), the option ``mutation: proposal``.

A tree is proposed by mutating a base expression without minding any rule, and starting over until a valid one comes
out: (a) a random subtree is replaced by a random full tree of depth 0 to 3, (b) a random node below the root by another
of as many arguments, (d) a random operator is put above a random node. (The code's (c) mutates constants, of which
there are none.) The trees are the code's: a linear map is an operator of two arguments, and its weights are leaves like
``x``, so that most of what comes out is nonsense, and most of what is not has one operation more than its base.

Where the sizes of a block are searched too, there is a linear map for each of them; both of a tree have to be the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture, architecture_of
from spaces.efficient_bert.counting import kinds_that_run, tree_counter
from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS, PLAIN, Expression, X
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.rules import TreeLimits, Widths, broken_rule, width_problem
from spaces.efficient_bert.windows import WindowedChoices

WEIGHTS = ("weights1", "weights2")
LEAVES = (INPUT, *WEIGHTS)
DEEPEST_SUBTREE = 3
"""Greatest depth of the random trees that subtrees are replaced by."""
TRIES, TRIES_OF_GIVEN_SIZES = 1_000, 400
"""Mutations of a base before it is taken as it is: in the paper's first stage, which searches sizes, and its second."""


class NetworkProposals:
    """Proposes networks as the paper's code does.

    The sizes of every block are drawn uniformly (twice as likely those of ``options.base_linear_ids``), again until the
    parameters are in the window; the expression of every block starts from the plain feed-forward, or as likely from
    its entry in ``options.base_expressions``. (The code draws whole networks again; the window asks for sizes alone, so
    that drawing these within it is the same law.)

    Args:
        options: of the space.
        sizes: what every block can have, within the window, weighted as it is drawn.
    """

    def __init__(self, options: EfficientBertOptions, sizes: WindowedChoices[tuple[int, int]]) -> None:
        self._options, self._sizes = options, sizes

    def sample(self, rng: random.Random) -> EfficientBertArchitecture:
        """Propose a network."""
        sizes = self._sizes.sample(rng)
        expressions = [self._expression(block, divisor, rng) for block, (_, divisor) in enumerate(sizes)]
        return architecture_of(self._options.hidden_size, sizes, expressions)

    def vary(self, block: int, choice: BlockChoice, rng: random.Random) -> Expression:
        """An expression for a block, counted from 0, that starts from the one it has; now and then the same."""
        return self._of_block(block).propose(choice.expression, rng, self._options.widths(choice.divisor))

    def _expression(self, block: int, divisor: int, rng: random.Random) -> Expression:
        options, widths = self._options, self._options.widths(divisor)
        fixed = options.fixed_expression(block)
        if fixed is not None:
            return fixed
        given = () if options.base_expressions is None else (Expression.parse(options.base_expressions[block]),)
        bases = [base for base in (*given, PLAIN) if _is_valid(base, options.limits, widths)]
        if not bases:
            return tree_counter(options.limits).sample(rng, kinds_that_run(widths, options.parallel))
        return self._of_block(block).propose(rng.choice(bases), rng, widths)

    def _of_block(self, block: int) -> Proposals:
        sizes = len(self._options.sizes_of_block(block))
        return Proposals(self._options.limits, sizes, TRIES if sizes > 1 else TRIES_OF_GIVEN_SIZES)


@dataclass(frozen=True)
class Proposals:
    """Proposes expressions as the paper's code does.

    Args:
        limits: of valid expressions.
        linear_maps: how many names linear maps have: 16 where sizes are searched, so that both of a tree have to be of
            one name by chance; 1 where they are not.
        tries: mutations of the base before it is given back as it is: 1,000 in the paper's first stage, 400 in its
            second.
    """

    limits: TreeLimits
    linear_maps: int = 1
    tries: int = TRIES_OF_GIVEN_SIZES

    def propose(self, base: Expression, rng: random.Random, widths: Widths) -> Expression:
        """A valid expression that runs at some widths by mutation of a base, or the base where none comes out."""
        for _ in range(self.tries):
            mutated = self.mutated(base, rng)
            if mutated is not None and _is_valid(mutated, self.limits, widths):
                return mutated
        return base

    def mutated(self, base: Expression, rng: random.Random) -> Expression | None:
        """One try: the mutated base if it is a tree of the right types; rules are not asked."""
        tree = list(self._named(base, rng.randrange(self.linear_maps)))
        self._replace_subtree(tree, rng)
        self._replace_node(tree, rng)
        self._insert_node(tree, rng)
        return _read(tree)

    def _named(self, base: Expression, number: int) -> Sequence[str]:
        """The paper's tree of an expression in prefix order, its linear maps of one name."""
        return tuple(f"linear{number}" if name in LINEAR_MAPS else name for name in base.prefix())

    def _replace_subtree(self, tree: list[str], rng: random.Random) -> None:
        start = rng.randrange(len(tree))
        depth = rng.randint(0, DEEPEST_SUBTREE)
        tree[start : _end(tree, start)] = self._full_tree(depth, rng)

    def _full_tree(self, depth: int, rng: random.Random) -> list[str]:
        """A random tree whose leaves are all at one depth."""
        if depth == 0:
            return [rng.choice(LEAVES)]
        operator = rng.choice(_operators(self.linear_maps))
        return [operator, *(name for _ in range(_arity(operator)) for name in self._full_tree(depth - 1, rng))]

    def _replace_node(self, tree: list[str], rng: random.Random) -> None:
        if len(tree) < 2:
            return
        place = rng.randrange(1, len(tree))
        tree[place] = rng.choice(_alike(_arity(tree[place]), self.linear_maps))

    def _insert_node(self, tree: list[str], rng: random.Random) -> None:
        start = rng.randrange(len(tree))
        end = _end(tree, start)
        operator = rng.choice(_operators(self.linear_maps))
        arguments: list[list[str]] = [[rng.choice(LEAVES)] for _ in range(_arity(operator))]
        arguments[rng.randrange(len(arguments))] = tree[start:end]
        tree[start:end] = [operator, *(name for argument in arguments for name in argument)]


def _is_valid(expression: Expression, limits: TreeLimits, widths: Widths) -> bool:
    return broken_rule(expression, limits) is None and width_problem(expression, widths) is None


@lru_cache(maxsize=16)
def _operators(linear_maps: int) -> tuple[str, ...]:
    return (*(f"linear{number}" for number in range(linear_maps)), *COMBINATIONS, *ACTIVATIONS)


@lru_cache(maxsize=64)
def _alike(arity: int, linear_maps: int) -> tuple[str, ...]:
    """What has so many arguments."""
    if arity == 0:
        return LEAVES
    return tuple(name for name in _operators(linear_maps) if _arity(name) == arity)


def _arity(name: str) -> int:
    if name in LEAVES:
        return 0
    return 1 if name in ACTIVATIONS else 2


def _end(tree: Sequence[str], start: int) -> int:
    """Behind the subtree that begins at a place."""
    open_places, place = 1, start
    while open_places:
        open_places += _arity(tree[place]) - 1
        place += 1
    return place


def _read(tree: Sequence[str]) -> Expression | None:
    """The expression of a tree, unless a weight stands where a tensor should, or the linear maps are not one pair."""
    if any(tree.count(weights) != 1 for weights in WEIGHTS):
        return None
    linear_maps = [name for name in tree if _is_linear(name)]
    if len(linear_maps) != 2 or linear_maps[0] != linear_maps[1]:
        return None
    expression, _ = _read_from(tree, 0)
    return expression


def _read_from(tree: Sequence[str], place: int) -> tuple[Expression | None, int]:
    """The expression that begins at a place, and the place behind it."""
    name = tree[place]
    if name == INPUT:
        return X, place + 1
    if name in WEIGHTS:
        return None, place + 1
    arguments = []
    weights = None
    end = place + 1
    for number in range(_arity(name)):
        if number == 1 and _is_linear(name):
            weights, end = tree[end], end + 1
            if weights not in WEIGHTS:
                return None, end
            continue
        argument, end = _read_from(tree, end)
        if argument is None:
            return None, end
        arguments.append(argument)
    operator = name if weights is None else LINEAR_MAPS[WEIGHTS.index(weights)]
    return Expression(operator, tuple(arguments)), end


def _is_linear(name: str) -> bool:
    return name.startswith("linear")
