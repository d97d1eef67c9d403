"""The exam of a search space."""

from __future__ import annotations

import dataclasses
import pickle
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.space import SearchSpace


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
        """Whatever a sampler chooses is a member of the space."""
        space = self.make_space()
        rng = random.Random(8)
        for _ in range(self.samples):
            chosen: dict[str, str] = {}
            for decision in space.decisions():
                if decision.is_active(chosen):
                    chosen[decision.name] = rng.choice(decision.choices)
            assert space.contains(space.from_decisions(chosen))

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
