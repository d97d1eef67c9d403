"""The trees of LaNAS: regions of the space, from the good to the bad, and which of them is sampled next.

``greedy`` is the tree of EfficientBERT's authors (paper notes, section 3.3), ``uct`` that of LaNAS (section 9.1). A
region is the way from the root to its node: a conjunction of splits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.strategies.lanas_classifiers import Features, Split

Fitness = NDArray[np.float64]
"""Of samples, the greater the better: float [samples]."""

FitClassifier = Callable[[Features, NDArray[np.bool_]], Split | None]
FitBoundary = Callable[[Features, Fitness], Split | None]

GOOD, BAD = "L", "R"
"""The letters of a region's name: left is good."""


@dataclass
class Node:
    """A region of the space.

    Attributes:
        name: the way to it from the root, a letter a split; empty for the root.
        members: int64, which samples lie in it by their fitness.
        value: what the greedy search compares: the median fitness of the members, minus infinity without any.
        split: what divides it; ``None`` for a leaf.
        children: its good and its bad part; empty for a leaf.
        visits: members, and candidates asked from it since.
        told: members, and candidates of it that were told since.
        total: the sum of the fitness of those that ``told`` counts.
    """

    name: str
    members: NDArray[np.int64]
    value: float
    split: Split | None = None
    children: tuple[Node, ...] = ()
    visits: int = 0
    told: int = 0
    total: float = 0.0

    @classmethod
    def of(cls, name: str, members: NDArray[np.int64], fitness: Fitness) -> Node:
        """A leaf with its members' statistics."""
        own = fitness[members]
        value = float(np.median(own)) if len(own) else -math.inf
        return cls(name, members, value, visits=len(own), told=len(own), total=float(own.sum()))

    def divide(self, split: Split, is_good: NDArray[np.bool_], fitness: Fitness) -> None:
        """Make children of a leaf.

        Args:
            split: what unseen architectures are divided by.
            is_good: bool [members]: members are divided by this, by their true fitness.
            fitness: of all samples.
        """
        self.split = split
        self.children = (
            Node.of(self.name + GOOD, self.members[is_good], fitness),
            Node.of(self.name + BAD, self.members[~is_good], fitness),
        )

    def nodes(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def leaves(self) -> list[Node]:
        """The leaves below this node (itself, if it is one), the best part first."""
        return [node for node in self.nodes() if not node.children]

    def way_to(self, name: str) -> list[Node]:
        """The nodes from this one, the root, to the one of that name."""
        way = [self]
        for letter in name:
            way.append(way[-1].children[letter == BAD])
        return way

    def regions_of(self, features: Features) -> list[str]:
        """The names of the leaves that the splits put architectures into."""
        names = [""] * len(features)
        waiting: list[tuple[Node, NDArray[np.int64]]] = [(self, np.arange(len(features)))]
        while waiting:
            node, rows = waiting.pop()
            if node.split is None or not len(rows):
                for row in rows.tolist():
                    names[row] = node.name
                continue
            good = node.split(features[rows])
            waiting += [(node.children[0], rows[good]), (node.children[1], rows[~good])]
        return names

    def statistics(self) -> dict[str, list[float]]:
        """Visits, told and total of every node by name, JSON-native."""
        return {node.name: [node.visits, node.told, node.total] for node in self.nodes()}

    def load_statistics(self, saved: Mapping[str, Sequence[float]]) -> None:
        """Take over what :meth:`statistics` of an equal tree gave."""
        for node in self.nodes():
            visits, told, node.total = saved[node.name]
            node.visits, node.told = int(visits), int(told)


# --- the authors' tree -----------------------------------------------------------------------------------------------


def height_for(samples: int, growth: Sequence[int]) -> int:
    """The height of the authors' tree: 1, and one more beyond each number of samples in ``growth``."""
    return 1 + sum(samples > limit for limit in growth)


def grow_greedy(features: Features, fitness: Fitness, height: int, fit: FitClassifier) -> Node:
    """Divide the samples at the median of their fitness, and the better half again, ``height`` times.

    The authors' tree divides the worse halves as well, which nobody ever descends to: a half's median is never below
    that of the other. They stay leaves here, which makes five classifiers of 31.

    Args:
        features: encoded samples [samples, features].
        fitness: of the samples.
        height: the most divisions on the way to a leaf.
        fit: makes a classifier; where it finds none the way ends early.

    Returns:
        The root.
    """
    root = node = Node.of("", np.arange(len(fitness)), fitness)
    for _ in range(height):
        is_good = split_at_median(fitness[node.members])
        split = None if is_good is None else fit(features[node.members], is_good)
        if is_good is None or split is None:
            break
        node.divide(split, is_good, fitness)
        node = better_child(node)
    return root


def split_at_median(fitness: Fitness) -> NDArray[np.bool_] | None:
    """Who is at least as good as the median: bool [samples].

    Where that is everybody (more than half are equally bad, failures for example), it is who is better than the median;
    ``None`` where nobody is, because all are equal.
    """
    if not len(fitness):
        return None
    median = np.median(fitness)
    is_good: NDArray[np.bool_] = fitness >= median
    if is_good.all():
        is_good = fitness > median
    return is_good if is_good.any() else None


def better_child(node: Node) -> Node:
    """The child with the greater value; the good one where they are equal."""
    good, bad = node.children
    return good if good.value >= bad.value else bad


def greedy_leaf(root: Node) -> Node:
    """Where the authors' search samples: from the root always down to the better child."""
    node = root
    while node.children:
        node = better_child(node)
    return node


# --- the tree of LaNAS -----------------------------------------------------------------------------------------------


def grow_uct(features: Features, fitness: Fitness, height: int, fit: FitBoundary) -> Node:
    """A full tree whose nodes each are divided by a regressor's mean prediction.

    Samples go to the good side if their true fitness reaches the boundary. A node whose samples are equally fit, or
    predicted alike, is not divided; a side that no sample went to is a leaf nobody visited.

    Args:
        features: encoded samples [samples, features].
        fitness: of the samples.
        height: divisions on the way to a leaf.
        fit: makes a regressor with its boundary.

    Returns:
        The root.
    """
    root = Node.of("", np.arange(len(fitness)), fitness)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        own = fitness[node.members]
        if len(node.name) == height or len(own) == 0 or np.ptp(own) == 0:
            continue
        split = fit(features[node.members], own)
        if split is not None:
            node.divide(split, own >= split.boundary, fitness)
            waiting.extend(node.children)
    return root


def uct_score(child: Node, parent: Node, cp: float) -> float:
    """x̄ + 2·Cp·√(2·ln n_parent / n), infinite for a child that nobody visited.

    Of a child whose visits are all under way the mean is not known yet; the parent's stands in.
    """
    if child.visits == 0:
        return math.inf
    known = child if child.told else parent
    mean = known.total / max(1, known.told)
    return mean + 2 * cp * math.sqrt(2 * math.log(max(1, parent.visits)) / child.visits)


def uct_leaf(root: Node, cp: float, rng: random.Random, closed: Collection[str]) -> Node | None:
    """Descend to the leaf of the highest scores, ties at random.

    Args:
        root: of the tree.
        cp: weight of what was visited seldom; 0: always the better mean.
        rng: decides ties.
        closed: names of leaves in which nothing is left to find.

    Returns:
        The leaf; ``None`` if all are closed.
    """
    if _is_closed(root, closed):
        return None
    node = root
    while node.children:
        scores = [-math.inf if _is_closed(child, closed) else uct_score(child, node, cp) for child in node.children]
        node = rng.choice([child for child, score in zip(node.children, scores, strict=True) if score == max(scores)])
    return node


def _is_closed(node: Node, closed: Collection[str]) -> bool:
    return all(leaf.name in closed for leaf in node.leaves())
