"""A space that is nothing but its decisions: drawing, varying and encoding follow from the choices alone."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.errors import SpaceError
from spaces.space import ArchitectureT, Decision, SearchSpace


class DecisionSpace(SearchSpace[ArchitectureT]):
    """The short way to a space: its author writes down the choices, what they cost and what they build.

    Left to write are :meth:`decisions`, :meth:`from_decisions`, :meth:`to_decisions`, :meth:`parse`, :meth:`cost`,
    :meth:`smallest`, :meth:`build`, :meth:`supernet`, and :meth:`from_options` if the space is registered. Every
    complete set of choices has to be an architecture, and two different sets have to be two architectures.
    """

    @abstractmethod
    def owns(self, architecture: Architecture) -> bool:
        """Whether ``architecture`` is of the class that this space makes, so that :meth:`to_decisions` can read it."""

    def sample(self, rng: random.Random) -> ArchitectureT:
        """Decide one thing after the other, each uniformly."""
        return self.decide(rng)

    def mutate(self, architecture: ArchitectureT, rng: random.Random) -> ArchitectureT:
        """Change one decision; those that only now have to be made are drawn."""
        before = self.to_decisions(architecture)
        open_ones = [one for one in self.decisions() if one.name in before and len(one.choices) > 1]
        if not open_ones:
            return architecture
        changed = rng.choice(open_ones)
        others = [choice for choice in changed.choices if choice != before[changed.name]]
        return self.decide(rng, {**before, changed.name: rng.choice(others)})

    def crossover(self, first: ArchitectureT, second: ArchitectureT, rng: random.Random) -> ArchitectureT:
        """Decide as one of the parents did, whichever chance names; where only one has decided, as that one."""
        mother, father = self.to_decisions(first), self.to_decisions(second)
        inherited = {}
        for decision in self.decisions():
            choices = [parent[decision.name] for parent in (mother, father) if decision.name in parent]
            if choices:
                inherited[decision.name] = rng.choice(choices)
        return self.decide(rng, inherited)

    def contains(self, architecture: Architecture) -> bool:
        """Whether every decision that applies was made, with one of its choices, and no other."""
        if not self.owns(architecture):
            return False
        chosen = self.to_decisions(architecture)  # type: ignore[arg-type]
        made: dict[str, str] = {}
        for decision in self.decisions():
            if decision.is_active(made):
                if chosen.get(decision.name) not in decision.choices:
                    return False
                made[decision.name] = chosen[decision.name]
        return made == chosen

    def require(self, architecture: ArchitectureT) -> ArchitectureT:
        """The architecture itself, for :meth:`parse` to end with.

        Raises:
            SpaceError: it lies outside the space; the message names the first choice that is not to be had.
        """
        if self.contains(architecture):
            return architecture
        chosen = self.to_decisions(architecture)
        for decision in self.decisions():
            if decision.name in chosen and chosen[decision.name] not in decision.choices:
                raise SpaceError(
                    f"{str(architecture)!r} lies outside the space {self.name}: {decision.name} is "
                    f"{chosen[decision.name]}, expected one of {', '.join(decision.choices)}"
                )
        raise SpaceError(
            f"{str(architecture)!r} lies outside the space {self.name}; see netsuke space show {self.name}"
        )

    def cardinality(self) -> int:
        """The number of complete sets of choices; those that others hang on are walked through one by one."""
        return _count(list(self.decisions()), {})

    def encode(self, architecture: ArchitectureT) -> NDArray[np.float64]:
        """For each decision the place of its choice from 0; -1 where it does not apply."""
        chosen = self.to_decisions(architecture)
        places = [
            one.choices.index(chosen[one.name]) if one.name in chosen else -1  # equal lengths, whatever applies
            for one in self.decisions()
        ]
        return np.array(places, dtype=np.float64)

    def genes(self, architecture: ArchitectureT) -> dict[str, Any]:
        """Every decision with its choice, whole numbers as numbers; empty text where it does not apply."""
        chosen = self.to_decisions(architecture)
        return {decision.name: _plain(chosen.get(decision.name, "")) for decision in self.decisions()}


def _count(decisions: Sequence[Decision], chosen: dict[str, str]) -> int:
    """How many complete sets of choices begin with ``chosen``."""
    if all(decision.condition is None for decision in decisions):
        return prod(len(decision.choices) for decision in decisions)
    first, later = decisions[0], decisions[1:]
    if not first.is_active(chosen):
        return _count(later, chosen)
    return sum(_count(later, {**chosen, first.name: choice}) for choice in first.choices)


def _plain(choice: str) -> int | str:
    return int(choice) if choice.isdecimal() else choice
