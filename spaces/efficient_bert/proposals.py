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

from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture, architecture_of
from spaces.efficient_bert.counting import kinds_that_run, tree_counter
from spaces.efficient_bert.expressions import PLAIN, Expression
from spaces.efficient_bert.numbered_trees import (
    FIRST_BINARY,
    FIRST_LINEAR,
    LEAVES,
    Surroundings,
    arity,
    end_of,
    numbered,
    read,
    surroundings_of,
)
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.rules import TreeLimits, Widths, broken_rule, width_problem
from spaces.efficient_bert.windows import WindowedChoices

DEEPEST_SUBTREE = 3
"""Greatest depth of the random trees that subtrees are replaced by."""
TRIES, TRIES_OF_GIVEN_SIZES = 1_000, 400
"""Mutations of a base before it is taken as it is: in the paper's first stage, which searches sizes, and its second."""


@dataclass(frozen=True)
class _Mendable:
    """What step (a) may leave for (b) and (d) to put right, for each number of linear maps that it leaves.

    A tree needs each of the weights once, two linear maps, weights where those take them, and tensors elsewhere. (b)
    makes another leaf of a leaf (one that is too many, or misplaced, or in the place of one that is missing), a linear
    map of a combination or the other way round, or changes nothing of all this. (d) does so only by a linear map, which
    brings one leaf of weights with it or takes one as its own. So what has to be right follows from what (d) puts in.

    Attributes:
        surplus: the most weights that occur again.
        missing: the most weights that do not occur.
        misplaced: the most nodes in a place of the wrong type.
    """

    surplus: int
    missing: int
    misplaced: int


_MENDABLE: dict[bool, tuple[_Mendable | None, ...]] = {
    False: (None, _Mendable(0, 0, 1), _Mendable(1, 1, 1), _Mendable(0, 0, 1)),
    True: (_Mendable(0, 1, 2), _Mendable(1, 2, 2), _Mendable(0, 1, 2), None),
}
"""By whether (d) puts a linear map in, and by the linear maps there are, none to three."""


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

    Of hundreds of tries one is valid, so a try ends as soon as nothing that is still to be drawn can make it valid. As
    no other try hangs on what is left undrawn, the law is that of drawing it all.

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
        draw = rng.random
        inserted = LEAVES + int(draw() * (self._end - LEAVES))
        start, depth = int(draw() * base.nodes), int(draw() * (DEEPEST_SUBTREE + 1))
        subtree = self._full_tree(depth, surroundings_of(base)[start], _MENDABLE[inserted >= FIRST_LINEAR], rng)
        if subtree is None:
            return None
        tree = list(numbered(base, int(draw() * self.linear_maps)))
        tree[start : end_of(tree, start)] = subtree
        self._replace_node(tree, rng)
        if not _can_take(tree, inserted):
            return None
        _insert_node(tree, inserted, rng)
        return read(tree)

    def _full_tree(
        self, depth: int, around: Surroundings, mendable: Sequence[_Mendable | None], rng: random.Random
    ) -> list[int] | None:
        """A random tree whose leaves are all at one depth; ``None`` as soon as no later step can mend it."""
        draw, operators, linear_from = rng.random, self._end - LEAVES, FIRST_LINEAR
        weights, linear_maps, surplus, misplaced = around.weights, around.linear_maps, 0, 0
        tree: list[int] = []
        open_places = [(depth, around.for_weights)]
        while open_places:
            level, for_weights = open_places.pop()
            if level:
                node = LEAVES + int(draw() * operators)
                misplaced += for_weights
                if node >= FIRST_BINARY:
                    linear_maps += node >= linear_from
                    open_places.append((level - 1, node >= linear_from))
                open_places.append((level - 1, False))
            else:
                node = int(draw() * LEAVES)
                misplaced += for_weights != (node > 0)
                surplus += weights & node > 0
                weights |= node
            if surplus > 1 or misplaced > 2 or linear_maps > 3:
                return None
            tree.append(node)
        most = mendable[linear_maps]
        if most is None or surplus > most.surplus or misplaced > most.misplaced:
            return None
        return tree if _MISSING[weights] <= most.missing else None

    def _replace_node(self, tree: list[int], rng: random.Random) -> None:
        if len(tree) < 2:
            return
        place = 1 + int(rng.random() * (len(tree) - 1))
        first, end = ((0, LEAVES), (LEAVES, FIRST_BINARY), (FIRST_BINARY, self._end))[arity(tree[place])]
        tree[place] = first + int(rng.random() * (end - first))

    @property
    def _end(self) -> int:
        """Behind the last number of a node."""
        return FIRST_LINEAR + self.linear_maps


_MISSING = (2, 1, 1, 0)
"""How many weights are missing, by the sum of the numbers of those that occur."""


def _can_take(tree: Sequence[int], inserted: int) -> bool:
    """Whether weights and linear maps can be right once an operator is put in."""
    ones, twos = tree.count(1), tree.count(2)
    if ones > 1 or twos > 1 or ones + twos + (inserted >= FIRST_LINEAR) < 2:
        return False
    linear_maps = [node for node in (*tree, inserted) if node >= FIRST_LINEAR]
    return len(linear_maps) == 2 and linear_maps[0] == linear_maps[1]


def _insert_node(tree: list[int], operator: int, rng: random.Random) -> None:
    start = int(rng.random() * len(tree))
    end = end_of(tree, start)
    arguments = [[int(rng.random() * LEAVES)] for _ in range(arity(operator))]
    arguments[int(rng.random() * len(arguments))] = tree[start:end]
    tree[start:end] = [operator, *(node for argument in arguments for node in argument)]


def _is_valid(expression: Expression, limits: TreeLimits, widths: Widths) -> bool:
    return broken_rule(expression, limits) is None and width_problem(expression, widths) is None
