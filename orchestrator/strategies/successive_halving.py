"""Successive halving over validation fidelity (Jamieson and Talwalkar 2016), by non-dominated rank."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.breeding import BreedingStrategy, Member, fittest
from orchestrator.strategies.drawing import Sampling
from spaces.architecture import Architecture


class SuccessiveHalvingOptions(StrategyOptions):
    """Options of :class:`SuccessiveHalving`.

    Attributes:
        bracket: candidates that begin together at the lowest fidelity.
        eta: of a rung's candidates the best 1/eta go on, to an eta times higher fidelity.
        rungs: fidelities, the search's own (``search.validation_batches``) being the last; fewer where that is too
            small to be divided by ``eta`` so often.
        descendants: share of a bracket that descends from the fittest at full fidelity, as soon as there are any; the
            others are random.
        parents: how many of the fittest they descend from.
        crossover_probability: how often a descendant gets genes from two parents before it is mutated.
    """

    sampling: Sampling = "sizes"
    bracket: int = Field(default=27, ge=2)
    eta: int = Field(default=3, ge=2)
    rungs: int = Field(default=3, ge=1)
    descendants: float = Field(default=0.75, ge=0.0, le=1.0)
    parents: int = Field(default=20, ge=1)
    crossover_probability: float = Field(default=0.5, ge=0.0, le=1.0)


@dataclass
class _Bracket:
    """Candidates that began together, at the rung they have come to.

    Attributes:
        rung: from 0, the lowest fidelity.
        size: candidates of the rung.
        arrived: how many of them were told.
        members: those of them that did not fail.
    """

    rung: int
    size: int
    arrived: int
    members: list[Member]


class SuccessiveHalving(BreedingStrategy):
    """Brackets of candidates that are scored on few batches first; the best by rank are scored on more.

    A rung is complete when every member was told; then its best (non-dominated rank, then crowding distance) are asked
    again, at the next fidelity, before anything new. While a rung waits for its last members the next bracket begins,
    so nothing stands still. Who failed does not go on.
    """

    name: ClassVar[str] = "successive_halving"
    options_class: ClassVar[type[StrategyOptions]] = SuccessiveHalvingOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._brackets: dict[int, _Bracket] = {}
        self._bracket_of: dict[Architecture, int] = {}
        self._promoted: deque[Architecture] = deque()
        self._begun = 0
        self._finished: list[Member] = []

    @property
    def levels(self) -> list[int]:
        """The fidelities, the lowest first; each is asked for at most once of a candidate."""
        return sorted({max(1, self.fidelity // self.options.eta**step) for step in range(self.options.rungs)})

    @property
    def waiting(self) -> bool:
        """Whether there are rungs whose best may still go on."""
        return bool(self._brackets)

    def fidelity_of(self, architecture: Architecture) -> int:
        """The fidelity of the rung that the candidate has come to."""
        return self.levels[self._brackets[self._bracket_of[architecture]].rung]

    def _propose(self) -> Architecture | None:
        while not self._promoted:
            fresh = self._fresh()
            if fresh is not None:
                return self._propose_given(fresh)
            if not self._end_filling():
                return None
        promoted = self._promoted.popleft()
        del self._told[promoted]
        return promoted

    def _propose_given(self, architecture: Architecture) -> Architecture:
        """Let a new candidate begin in the bracket that is being filled."""
        number = self._begun // self.options.bracket
        self._brackets.setdefault(number, _Bracket(0, self.options.bracket, 0, []))
        self._bracket_of[architecture] = number
        self._begun += 1
        return architecture

    def _end_filling(self) -> bool:
        """No new candidate is left, so the bracket that is being filled is as large as it gets; whether it grew on."""
        number, begun = divmod(self._begun, self.options.bracket)
        if not begun:
            return False
        self._begun += self.options.bracket - begun
        bracket = self._brackets[number]
        bracket.size = begun
        self._advance(number)
        return bool(self._promoted)

    def _fresh(self) -> Architecture | None:
        """A candidate that was never asked."""
        if self._finished and self._rng.random() < self.options.descendants:
            parent = self._rng.choice(self._finished).architecture
            if self._rng.random() < self.options.crossover_probability:
                parent = self._cross(parent, self._rng.choice(self._finished).architecture)
            child = self._descend(parent, self._mutate)
            if child is not None:
                return child
        return self._explore()

    def _observe(self, measurement: Measurement) -> None:
        member = None if measurement.objectives is None else self._member(measurement)
        number = self._bracket_of.get(measurement.architecture)
        if number is None:  # never asked here: measured by somebody else, at full fidelity
            self._finish([] if member is None else [member])
            return
        bracket = self._brackets[number]
        bracket.arrived += 1
        if member is not None:
            bracket.members.append(member)
        self._advance(number)

    def _advance(self, number: int) -> None:
        """Let a bracket's best go on, if its rung is complete."""
        bracket = self._brackets[number]
        if bracket.arrived < bracket.size:
            return
        last = bracket.rung == len(self.levels) - 1
        if last:
            self._finish(bracket.members)
        best = [] if last else fittest(bracket.members, self.objectives, max(1, bracket.size // self.options.eta))
        stays = {member.architecture for member in best}
        self._bracket_of = {
            architecture: place
            for architecture, place in self._bracket_of.items()
            if place != number or architecture in stays
        }
        if best:
            self._promoted.extend(member.architecture for member in best)
            self._brackets[number] = _Bracket(bracket.rung + 1, len(best), 0, [])
        else:
            del self._brackets[number]

    def _finish(self, members: Sequence[Member]) -> None:
        """Members that were scored at full fidelity become parents, if they are fit enough."""
        self._finished = fittest([*self._finished, *members], self.objectives, self.options.parents)

    def _state(self) -> dict[str, Any]:
        return {
            "brackets": [
                [number, one.rung, one.size, one.arrived, self._saved(one.members)]
                for number, one in self._brackets.items()
            ],
            "bracket_of": [[str(architecture), number] for architecture, number in self._bracket_of.items()],
            "promoted": [str(architecture) for architecture in self._promoted],
            "begun": self._begun,
            "finished": self._saved(self._finished),
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._brackets = {
            number: _Bracket(rung, size, arrived, self._restored(members))
            for number, rung, size, arrived, members in state["brackets"]
        }
        self._bracket_of = {self.space.parse(text): number for text, number in state["bracket_of"]}
        self._promoted = deque(self.space.parse(text) for text in state["promoted"])
        self._begun = int(state["begun"])
        self._finished = self._restored(state["finished"])
