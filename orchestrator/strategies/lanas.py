"""Search by learned regions of the space: LaNAS, and the greedy variant that EfficientBERT's authors search with."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.breeding import BreedingStrategy, Member
from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.lanas_classifiers import (
    ClassifierSettings,
    Features,
    Model,
    fit_boundary,
    fit_classifier,
)
from orchestrator.strategies.lanas_fitness import Rule, fitness_among, fitness_of
from orchestrator.strategies.lanas_tree import Node, greedy_leaf, grow_greedy, grow_uct, height_for, uct_leaf
from spaces.architecture import Architecture

BATCH = 128
"""Proposals that are judged together."""

QUEUE = 32
"""Accepted proposals that wait for a region at most; learning throws them away."""


class LaNASOptions(StrategyOptions):
    """Options of :class:`LaNAS`.

    Attributes:
        mode: ``greedy``: the code of EfficientBERT's authors, which always samples the best half of the best half;
            ``uct``: LaNAS as published, which weighs the regions' means against how seldom they were visited.
        model: what divides regions: ``lightgbm`` or ``linear`` (classifiers in the mode ``greedy``, regressors in
            ``uct``); ``null``: ``lightgbm`` in the mode ``greedy``, ``linear`` in ``uct``.
        fitness: ``first``: the first objective; ``dominance``: how few others dominate a candidate, in all objectives;
            ``null``: ``first`` of one objective, ``dominance`` of several.
        initial: random candidates that are asked before anything is learned; ``null``: 80 in the mode ``greedy``, 40 in
            ``uct``.
        relearn: results after which the tree is learned anew; ``null``: 10 in the mode ``greedy``, 20 in ``uct``.
        height: divisions on the way from the whole space to a region; ``null``: in the mode ``greedy`` 1 and one more
            beyond each number of results in ``growth``, in ``uct`` 4 (31 nodes, 16 of them leaves).
        growth: numbers of results beyond which the tree of the mode ``greedy`` is one higher.
        cp: weight of seldom visited regions in the mode ``uct``; the fitness goes from 0 (worst result) to 1 (best).
        max_proposals: proposals that a region may reject in a row before any new candidate is taken. A space of no more
            architectures is looked through as soon as chance finds nothing.
        around: share of the proposals that are mutants of a region's known candidates; the others are drawn at random
            (see ``sampling``). Where a draw breaks a constraint, a mutant steps in.
        mutations: the most mutations of such a mutant; the number is drawn.
        tuning: settings of LightGBM that Optuna's TPE tries for each classifier of the mode ``greedy`` (the authors:
            10); 0: LightGBM's own.
        max_refits: fits of a classifier of the mode ``greedy``, each with other samples held out, after which a region
            stays undivided.
    """

    mode: Literal["greedy", "uct"] = "greedy"
    model: Model | None = None
    fitness: Rule | None = None
    initial: int | None = Field(default=None, ge=1)
    relearn: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1, le=12)
    growth: tuple[int, ...] = (400, 800, 1600, 3200)
    cp: float = Field(default=0.1, ge=0.0)
    max_proposals: int = Field(default=20_000, ge=1)
    around: float = Field(default=0.0, ge=0.0, le=1.0)
    mutations: int = Field(default=3, ge=1)
    tuning: int = Field(default=0, ge=0)
    max_refits: int = Field(default=200, ge=1)


class LaNAS(BreedingStrategy):
    """A tree of learned splits divides the space into good and bad regions; candidates are drawn from a good one.

    Proposals are drawn at random and judged by the splits between the whole space and the region that is sampled, until
    one passes all of them. Results are the samples that the tree is learned from, again and again; failures count as
    the worst of them.

    ``greedy`` (paper notes on EfficientBERT, section 3.3): classifiers of who reaches the median fitness, a fifth of
    the samples judging each; the tree grows with the number of samples. There is no exploration but the first
    candidates and the classifiers' errors. By default LightGBM is not tuned, unlike the authors', whose ten tried
    settings make every relearning ten times as dear, where it happens after ten results; a candidate of theirs trains
    for minutes, ours may take milliseconds.

    ``uct`` (section 9.1, Wang et al. 2021): a tree of fixed height whose boundaries are a regressor's mean prediction;
    the region follows from UCT, visits and means flow back with every result. A candidate counts as a visit when it is
    asked, so that those in flight at once spread over the regions, and enters the means when it is told.

    More than the originals do: equally fit or failed samples, however many, leave regions undivided rather than crash;
    in the mode ``uct`` a region in which ``max_proposals`` in a row found nothing new is passed over until the next
    learning.

    The saved state has no models. They are learned again from the same samples with the same seed, to the bit.
    """

    name: ClassVar[str] = "lanas"
    options_class: ClassVar[type[StrategyOptions]] = LaNASOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        chosen: LaNASOptions = self.options
        self._greedy = chosen.mode == "greedy"
        self._model: Model = chosen.model or ("lightgbm" if self._greedy else "linear")
        self._rule: Rule = chosen.fitness or ("first" if len(self.objectives) == 1 else "dominance")
        self._initial = chosen.initial or (80 if self._greedy else 40)
        self._relearn = chosen.relearn or (10 if self._greedy else 20)
        self._samples: list[Member] = []
        self._features: list[Any] = []
        self._root: Node | None = None
        self._learned_from = 0
        self._seed = 0
        self._queues: dict[str, deque[Architecture]] = {}
        self._rejected: dict[str, int] = {}
        self._region_of: dict[Architecture, str] = {}
        self._region_rows: dict[str, NDArray[np.int64]] | None = None

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self._initial:
            return self._explore()
        if all(member.values is None for member in self._samples):
            return self._explore()
        if self._root is None or len(self._samples) - self._learned_from >= self._relearn:
            self._learn()
        leaf = self._choose()
        found = None if leaf is None else self._draw_from(leaf)
        if leaf is None or found is None:
            return self._explore()
        self._region_of[found] = leaf.name
        for node in self._way_to(leaf.name):
            node.visits += 1
        return found

    # --- learning ------------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Grow a new tree from everything told so far, and forget what the old one had accepted."""
        self._learned_from, self._seed = len(self._samples), self._rng.getrandbits(32)
        self._queues, self._rejected, self._region_of, self._region_rows = {}, {}, {}, None
        self._root = self._grow()

    def _grow(self) -> Node:
        """The tree of the first ``_learned_from`` samples and ``_seed``: a function of these alone."""
        rng = random.Random(self._seed)
        samples = self._samples[: self._learned_from]
        for member in samples[len(self._features) :]:
            self._features.append(self.space.encode(member.architecture))
        features = np.stack(self._features[: len(samples)])
        fitness = fitness_of(samples, self.objectives, self._rule)
        if not self._greedy:
            fit = lambda seen, own: fit_boundary(seen, own, self._model, rng.randrange(1 << 31))  # noqa: E731
            return grow_uct(features, fitness, self.options.height or 4, fit)
        settings = ClassifierSettings(self._model, self.options.tuning, self.options.max_refits)
        height = self.options.height or height_for(len(samples), self.options.growth)
        return grow_greedy(features, fitness, height, partial(fit_classifier, settings=settings, rng=rng))

    def _observe(self, measurement: Measurement) -> None:
        failed = measurement.objectives is None
        member = Member(measurement.architecture, None) if failed else self._member(measurement)
        region = self._region_of.pop(measurement.architecture, None)
        if region is not None and not self._greedy:
            known = self._samples[: self._learned_from]
            fitness = fitness_among(member, known, self.objectives, self._rule)
            for node in self._way_to(region):
                node.told += 1
                node.total += fitness
        self._samples.append(member)

    # --- drawing -------------------------------------------------------------------------------------------------

    def _choose(self) -> Node | None:
        """The region to draw from; ``None`` if nothing is left to find where it should be."""
        assert self._root is not None
        closed = {
            name
            for name, rejected in self._rejected.items()
            if rejected >= self.options.max_proposals and not self._queues.get(name)
        }
        if not self._greedy:
            return uct_leaf(self._root, self.options.cp, self._rng, closed)
        leaf = greedy_leaf(self._root)
        return None if leaf.name in closed else leaf

    def _draw_from(self, leaf: Node) -> Architecture | None:
        """A new feasible architecture of a region; ``None`` after too many proposals in a row outside it."""
        queue = self._queues.setdefault(leaf.name, deque())
        while True:
            while queue:
                candidate = queue.popleft()
                if self._is_new(candidate):
                    return candidate
            if self._rejected.get(leaf.name, 0) >= self.options.max_proposals:
                return None
            self._judge(leaf)

    def _judge(self, leaf: Node) -> None:
        """Let proposals wait in the queue of their region, if candidates are drawn from there at all.

        They are drawn; where those drawn last were all rejected and the space has no more architectures than a region
        may reject, they are all there are.
        """
        assert self._root is not None
        if self._rejected.get(leaf.name, 0) > 0 and self._enumerable:
            self._look_through(leaf)
            return
        count = min(BATCH, self.options.max_proposals)
        drawn = dict.fromkeys(self._proposal(leaf) for _ in range(count))
        fresh = [one for one in drawn if self._is_new(one) and self.feasibility(one)]
        for region in self._sampled_regions(leaf):
            self._rejected[region.name] = self._rejected.get(region.name, 0) + count
        for candidate, name in zip(fresh, self._root.regions_of(self._encoded(fresh)), strict=True):
            if name in self._rejected and self._wait(candidate, name):
                self._rejected[name] = 0

    def _look_through(self, leaf: Node) -> None:
        """Fill the queues with what is new of the whole space, in random order; where nothing is, nothing is left."""
        assert self._root is not None
        architectures, features = self._whole_space
        if self._region_rows is None:
            names = np.array(self._root.regions_of(features))
            self._region_rows = {name: np.flatnonzero(names == name) for name in np.unique(names).tolist()}
        chance = np.random.default_rng(self._rng.getrandbits(64))
        for region in self._sampled_regions(leaf):
            self._rejected[region.name] = self.options.max_proposals
            for row in chance.permutation(self._region_rows.get(region.name, np.arange(0))).tolist():
                if self._wait(architectures[row], region.name):
                    self._rejected[region.name] = 0
                if len(self._queues[region.name]) == QUEUE:
                    break

    def _wait(self, candidate: Architecture, name: str) -> bool:
        """Let a candidate wait for its region, if it is new and there is room; whether candidates wait that it adds to.

        Those of a full queue count as well: the region is not used up.
        """
        queue = self._queues.setdefault(name, deque())
        if len(queue) == QUEUE:
            return True
        if candidate in queue or not self._is_new(candidate):
            return False
        queue.append(candidate)
        return True

    def _sampled_regions(self, leaf: Node) -> Sequence[Node]:
        """Where candidates are drawn from before the next learning, of which ``leaf`` is one."""
        assert self._root is not None
        return [leaf] if self._greedy else self._root.leaves()

    @cached_property
    def _whole_space(self) -> tuple[list[Architecture], Features]:
        """Everything feasible, and its features."""
        found = [one for one in enumerate_architectures(self.space) if self.feasibility(one)]
        return found, self._encoded(found)

    @cached_property
    def _enumerable(self) -> bool:
        return self.space.cardinality() <= self.options.max_proposals

    def _proposal(self, leaf: Node) -> Architecture:
        """A random architecture, or a mutant of one that is known to lie in the region."""
        if self.options.around and self._rng.random() < self.options.around:
            return self._mutant(leaf)
        drawn = self._draw()
        return drawn if self.feasibility(drawn) else self._mutant(leaf)

    def _mutant(self, leaf: Node) -> Architecture:
        """A descendant of one of the region's samples; of any sample, where it has none."""
        members = leaf.members.tolist() or range(self._learned_from)
        mutant = self._samples[self._rng.choice(members)].architecture
        for _ in range(self._rng.randint(1, self.options.mutations)):
            mutant = self._mutate(mutant)
        return mutant

    def _encoded(self, architectures: Sequence[Architecture]) -> Features:
        return np.array([self.space.encode(architecture) for architecture in architectures], dtype=np.float64)

    def _way_to(self, name: str) -> list[Node]:
        return [] if self._root is None else self._root.way_to(name)

    # --- state ---------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "samples": self._saved(self._samples),
            "learned_from": self._learned_from,
            "seed": self._seed,
            "statistics": None if self._root is None else self._root.statistics(),
            "queues": {name: [str(one) for one in queue] for name, queue in self._queues.items()},
            "rejected": dict(self._rejected),
            "region_of": {str(architecture): name for architecture, name in self._region_of.items()},
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._samples, self._features = self._restored(state["samples"]), []
        self._learned_from, self._seed = int(state["learned_from"]), int(state["seed"])
        self._root = self._region_rows = None
        if state["statistics"] is not None:
            self._root = self._grow()
            self._root.load_statistics(state["statistics"])
        self._queues = {name: deque(map(self.space.parse, texts)) for name, texts in state["queues"].items()}
        self._rejected = {name: int(count) for name, count in state["rejected"].items()}
        self._region_of = {self.space.parse(text): name for text, name in state["region_of"].items()}
