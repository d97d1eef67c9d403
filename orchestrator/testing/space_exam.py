"""The exams of a search space: of any, and of one that is made of blocks."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
from abc import ABC, abstractmethod
from collections import Counter
from itertools import islice
from typing import Any, ClassVar, get_args

import numpy as np

from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.errors import SpaceError
from spaces.space import BlockwiseSpace, Cost, FlopsRule, SamplingLaw, SearchSpace


class SpaceExam(ABC):
    """What every :class:`~spaces.space.SearchSpace` must be able to do; subclass it in a test module.

    Attributes:
        samples: architectures drawn for each question.
        builds: how many of them are built to compare their parameters with the arithmetic.
    """

    samples: ClassVar[int] = 100
    builds: ClassVar[int] = 5

    @abstractmethod
    def make_space(self) -> SearchSpace[Any]:
        """The space under examination, of any size."""

    def make_tiny_space(self) -> SearchSpace[Any] | None:
        """An instance with at most a few thousand architectures, to be counted; ``None`` if there is no such thing."""
        return None

    def test_equal_seeds_draw_equal_samples(self) -> None:
        """Randomness comes from the generator that is passed in, and from nowhere else."""
        space = self.make_space()
        first, second = random.Random(3), random.Random(3)
        for _ in range(self.samples):
            assert space.sample(first) == space.sample(second)

    def test_samples_are_members_and_values(self) -> None:
        """Samples lie in the space, are hashable, frozen, and have an identity that follows from their text."""
        space = self.make_space()
        for architecture in self._drawn(space):
            assert space.contains(architecture)
            twin = space.parse(str(architecture))
            assert twin == architecture
            assert hash(twin) == hash(architecture)
            assert twin.arch_id == architecture.arch_id
            assert str(twin) == str(architecture)
            if dataclasses.is_dataclass(architecture):
                self._assert_frozen(architecture)

    def test_mutations_stay_inside_and_differ(self) -> None:
        """A mutation is another member (unless there is only one), a walk of them included."""
        space = self.make_space()
        rng = random.Random(5)
        current = space.sample(rng)
        for _ in range(self.samples):
            neighbour = space.mutate(current, rng)
            assert space.contains(neighbour), f"{current} mutated to {neighbour}, which is outside"
            assert neighbour != current or space.cardinality() == 1
            current = neighbour

    def test_mutations_reach_more_than_one_neighbour(self) -> None:
        """Mutation explores: from one architecture several others are met."""
        space = self.make_space()
        rng = random.Random(6)
        start = space.sample(rng)
        neighbours = {space.mutate(start, rng) for _ in range(self.samples)}
        assert len(neighbours) >= min(3, space.cardinality() - 1)

    def test_crossovers_stay_inside(self) -> None:
        """A child of two members is a member; a child of twins is their twin."""
        space = self.make_space()
        rng = random.Random(7)
        for _ in range(self.samples):
            first, second = space.sample(rng), space.sample(rng)
            child = space.crossover(first, second, rng)
            assert space.contains(child), f"{first} and {second} gave {child}, which is outside"
            assert space.crossover(first, first, rng) == first

    def test_encodings_are_injective(self) -> None:
        """Vectors have one length and tell architectures apart."""
        space = self.make_space()
        distinct = set(self._drawn(space))
        vectors = [space.encode(architecture) for architecture in distinct]
        assert len({vector.shape for vector in vectors}) == 1
        assert all(np.isfinite(vector).all() and vector.dtype == np.float64 for vector in vectors)
        assert len({vector.tobytes() for vector in vectors}) == len(distinct)

    def test_decisions_round_trip(self) -> None:
        """Each architecture is reached by its choices; exactly the decisions that apply are made."""
        space = self.make_space()
        decisions = space.decisions()
        assert len({decision.name for decision in decisions}) == len(decisions)
        for architecture in self._drawn(space):
            chosen = space.to_decisions(architecture)
            assert space.from_decisions(chosen) == architecture
            made: dict[str, str] = {}
            for decision in decisions:
                if decision.is_active(made):
                    made[decision.name] = chosen[decision.name]
                    assert made[decision.name] in decision.choices
            assert made == chosen, f"{architecture} has choices that no decision asks for"

    def test_random_choices_are_architectures(self) -> None:
        """Whatever a sampler chooses is a member of the space; what was chosen before stays."""
        space = self.make_space()
        rng = random.Random(8)
        for _ in range(self.samples):
            decided = space.decide(rng)
            assert space.contains(decided)
            assert space.decide(rng, space.to_decisions(decided)) == decided

    def test_cost_is_what_is_built(self) -> None:
        """The arithmetic counts exactly the parameters of the built module."""
        space = self.make_space()
        for architecture in self._drawn(space)[: self.builds]:
            cost = space.cost(architecture)
            built = sum(parameter.numel() for parameter in space.build(architecture).parameters())
            assert cost.parameters == built, f"{architecture}: counted {cost.parameters}, built {built}"
            assert 0 < cost.encoder_parameters <= cost.parameters
            assert cost.flops > 0

    def test_genes_are_flat_and_json_native(self) -> None:
        """Genes are columns: equal names for all architectures, plain values."""
        space = self.make_space()
        rows = [space.genes(architecture) for architecture in self._drawn(space)]
        for row in rows:
            assert all(isinstance(name, str) for name in row)
            assert all(isinstance(value, str | int | float | bool) for value in row.values())

    def test_aspects_can_be_searched_alone(self) -> None:
        """Keeping an aspect of an architecture leaves a part of the space around it; keeping all of them, only it."""
        space = self.make_space()
        architecture = space.sample(random.Random(9))
        rng = random.Random(10)
        for kept in [[aspect] for aspect in space.aspects()]:
            part = space.narrowed(architecture, kept)
            assert part.contains(architecture)
            assert part.cardinality() <= space.cardinality()
            for _ in range(10):
                drawn = part.mutate(part.sample(rng), rng)
                assert part.contains(drawn)
                assert space.contains(drawn)
        if space.aspects():
            assert space.narrowed(architecture, space.aspects()).cardinality() == 1
        try:
            space.narrowed(architecture, ["no such aspect"])
        except SpaceError:
            return
        raise AssertionError("an aspect that there is not was kept")

    def test_twins_behave_alike(self) -> None:
        """Behaviour follows from the architecture; counts by name are JSON-native."""
        space = self.make_space()
        for architecture in self._drawn(space)[:20]:
            assert space.behaviour(space.parse(str(architecture))) == space.behaviour(architecture)
            assert all(isinstance(count, int) for count in space.parameter_counts(architecture).values())
        assert json.loads(json.dumps(space.counts())).keys() == space.counts().keys()

    def test_cardinality_is_exact(self) -> None:
        """Walking all decisions of a tiny instance meets every architecture, and sampling meets no other."""
        space = self.make_tiny_space()
        if space is None:
            return
        everything = set(enumerate_architectures(space))
        assert len(everything) == space.cardinality()
        assert set(self._drawn(space)) <= everything

    def test_pickles(self) -> None:
        """Space and architectures travel to other processes."""
        space = self.make_space()
        copy = pickle.loads(pickle.dumps(space))
        for architecture in self._drawn(space)[:10]:
            assert pickle.loads(pickle.dumps(architecture)) == architecture
            assert copy.contains(architecture)
            assert copy.cost(architecture) == space.cost(architecture)

    def _drawn(self, space: SearchSpace[Any]) -> list[Any]:
        rng = random.Random(11)
        return [space.sample(rng) for _ in range(self.samples)]

    def _assert_frozen(self, architecture: Any) -> None:
        field = dataclasses.fields(architecture)[0].name
        try:
            setattr(architecture, field, None)
        except dataclasses.FrozenInstanceError:
            return
        raise AssertionError(f"{type(architecture).__name__} is not frozen")


class BlockwiseSpaceExam(SpaceExam):
    """What a :class:`~spaces.space.BlockwiseSpace` must be able to do besides, so that it can be shrunk and solved."""

    blocks: ClassVar[int] = 2_000
    """Block architectures looked at, from the beginning of the order and at random."""

    @abstractmethod
    def make_space(self) -> BlockwiseSpace[Any]:
        """The space under examination, of any size."""

    def test_blocks_have_an_order(self) -> None:
        """Enumeration meets every block architecture once; places lead there and back."""
        space = self.make_space()
        listed = list(islice(space.enumerate_blocks(), self.blocks))
        assert len(listed) == len(set(listed)) == min(self.blocks, space.block_cardinality())
        assert [space.block_at(index) for index in range(len(listed))] == listed
        rng = random.Random(13)
        for index in [*range(len(listed)), *(rng.randrange(space.block_cardinality()) for _ in range(self.samples))]:
            block = space.block_at(index)
            assert space.block_index(block) == index
            assert space.parse_block(str(block)) == block

    def test_blocks_are_drawn_by_either_law(self) -> None:
        """Drawn blocks are members, and equal seeds draw equal ones."""
        space = self.make_space()
        for law in get_args(SamplingLaw):
            first, second = random.Random(17), random.Random(17)
            for _ in range(self.samples):
                block = space.sample_block(first, law)
                assert block == space.sample_block(second, law)
                assert 0 <= space.block_index(block) < space.block_cardinality()

    def test_tables_of_blocks_are_in_order(self) -> None:
        """The vectorised costs and part counts are those of each block architecture."""
        space = self.make_space()
        costs = space.block_costs(40)
        parts, counts = space.block_part_counts()
        assert costs.parameters.shape == costs.flops.shape == (space.block_cardinality(),)
        assert counts.shape == (space.block_cardinality(), len(parts))
        rng = random.Random(19)
        for index in (rng.randrange(space.block_cardinality()) for _ in range(self.samples)):
            block = space.block_at(index)
            cost = space.block_cost(block, 40)
            assert (costs.parameters[index], costs.flops[index]) == (cost.parameters, cost.flops)
            occurring = Counter(space.parts_of_block(block))
            assert {part: int(count) for part, count in zip(parts, counts[index], strict=True) if count} == occurring

    def test_costs_add_up_over_parts(self) -> None:
        """A network's cost, by either rule, is the sum over embeddings, links and blocks."""
        space = self.make_space()
        rng = random.Random(23)
        for _ in range(self.samples):
            embedding_size = rng.choice(space.embedding_choices())
            blocks = [space.sample_block(rng) for _ in range(space.num_blocks)]
            architecture = space.assemble(embedding_size, blocks)
            assert space.contains(architecture)
            parts = space.parts_of_network(embedding_size, blocks)
            assert list(space.parts_of(architecture)) == parts
            assert set(parts) <= set(space.parts())
            for rule in get_args(FlopsRule):
                costs = [dataclasses.astuple(space.part_cost(part, 40, rule)) for part in parts]
                assert Cost(*map(sum, zip(*costs, strict=True))) == space.cost(architecture, 40, rule)

    def test_no_sample_is_smaller_than_the_smallest(self) -> None:
        """And the embedding ladder keeps to the space."""
        space = self.make_space()
        smallest = space.cost(space.smallest()).encoder_parameters
        assert all(space.cost(architecture).encoder_parameters >= smallest for architecture in self._drawn(space))
        assert {space.embedding_ladder(millions * 10**6) for millions in range(70)} <= set(space.embedding_choices())
