"""The contract of a search strategy: ask for candidates, tell what they scored, save and restore everything."""

from __future__ import annotations

import difflib
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import CheapObjectives, Constraint, Feasibility, Objective
from orchestrator.strategies.drawing import Sampling, SizeDrawer, size_objective, size_range
from orchestrator.strategies.enumeration import ENUMERATION_LIMIT, enumerate_architectures
from spaces.architecture import Architecture
from spaces.space import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

    from orchestrator.solving.networks import SolvableNetworks
    from spaces.sampling_distribution import ExpectedCost

STATE_FORMAT = 2
"""Version 2 counts what was drawn; what version 1 began would go on otherwise than it did there."""


class StrategyOptions(BaseModel):
    """Options every strategy has; each strategy adds its own in a subclass.

    Attributes:
        sampling: how candidates that descend from no other are drawn, those of the start among them.
            ``architectures``: by the space's own law, mostly all architectures alike, so that nearly all are large;
            ``decisions``: one decision after the other, so that all depths are alike; ``sizes``: evenly from the
            smallest to the largest, by the first objective known before an evaluation (where there is none, like
            ``architectures``).
        max_tries: how many children or samples are tried for a new, feasible candidate before the next remedy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampling: Sampling = "architectures"
    max_tries: int = Field(default=50, ge=1)


class Strategy(ABC):
    """Proposes architectures and learns from their measurements.

    The order of calls is free: any number of :meth:`ask` and :meth:`tell`, so a strategy never waits for a generation
    to be complete. What it asks is a function of the seed and of the sequence of calls alone, also when the state was
    saved, the process killed, and the state loaded into a new object in between. Not thread-safe.

    Subclasses declare :attr:`options_class` and implement :meth:`_propose` and :meth:`_observe`, and save their own
    state in :meth:`_state` and :meth:`_load_state`. Randomness comes from ``self._rng`` only. They are registered by
    entry point in the group ``netsuke.strategies`` and can sit ``orchestrator.testing.StrategyExam``.

    Args:
        space: what is searched.
        objectives: what is optimised, at least one.
        constraints: hard limits on cheap objectives; architectures that break one are never asked.
        seed: of all randomness.
        cheap: computes the cheap objectives; by default the arithmetic ones of the space.
        **options: the strategy's options, see its ``options_class``.

    Raises:
        UserError: an option or constraint is wrong.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[StrategyOptions]] = StrategyOptions
    needs_block_tables: ClassVar[bool] = False
    """Whether the strategy adds up block losses: :meth:`use_tables` is then called before the first ask."""

    def __init__(
        self,
        space: SearchSpace[Any],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        *,
        cheap: CheapObjectives | None = None,
        **options: Any,
    ) -> None:
        if not objectives:
            raise UserError(f"strategy {self.name}: no objective given, expected at least one")
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed
        self.cheap = cheap or CheapObjectives(space)
        self.feasibility = Feasibility(self.cheap, constraints)
        self.options: Any = parse_options(self.name, self.options_class, options)
        self._rng = random.Random(seed)
        self._pending: dict[Architecture, None] = {}
        self._told: dict[Architecture, None] = {}
        self._behaviours: set[str] = set()
        self._to_repeat: deque[Architecture] = deque()
        self._starting: tuple[Architecture, ...] = ()
        self._drawn = 0
        self._drawer: SizeDrawer | None = None
        self.fidelity = 1

    def start_with(self, architectures: Sequence[Architecture]) -> None:
        """Name candidates to ask before the strategy's own; infeasible ones are passed over.

        They are not part of the state: name the same ones again before :meth:`load_state_dict`.
        """
        self._starting = tuple(architecture for architecture in architectures if self.feasibility(architecture))

    def use_tables(  # noqa: B027 - most strategies need none
        self, networks: SolvableNetworks, budgets: Sequence[Sequence[Constraint]]
    ) -> None:
        """Take the tables of block losses, where :attr:`needs_block_tables`; they are not part of the state.

        Args:
            networks: what can be combined.
            budgets: the limits of each budget.
        """

    def use_costs(self, costs: Mapping[str, ExpectedCost]) -> None:  # noqa: B027 - most strategies need none
        """Take what distributions over the space cost on the average; before the first ask, and not part of the state.

        Args:
            costs: by the name of their objective: ``flops``, ``encoder_parameters``, and ``latency_ms`` where a table
                can say it.
        """

    def start_at(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - most strategies learn no distribution
        """Take a distribution that was learned before; before the first ask, and before a state is loaded.

        Args:
            state: of the space's :class:`~spaces.sampling_distribution.SamplingDistribution`, its ``state_dict``.
        """

    def use_budget(self, evaluations: int) -> None:  # noqa: B027 - most strategies search alike to the end
        """Say how many candidates will be asked at most; before the first ask, and not part of the state.

        Args:
            evaluations: of the whole search, starting candidates and those before an interruption included.
        """

    def ask(self, n: int) -> list[Architecture]:
        """Propose up to ``n`` candidates.

        Never one that was asked or told before (at the same fidelity, see :meth:`fidelity_of`) or that behaves like one
        (:meth:`~spaces.space.SearchSpace.behaviour`), never one that breaks a constraint. The only exception: after
        :meth:`load_state_dict`, candidates that had been asked but not told are asked once more, first and in order.

        Args:
            n: how many are wanted.

        Returns:
            ``n`` candidates; fewer, down to none, only when the strategy finds no further feasible architecture, or
            while it is :attr:`waiting`. A small space (up to 20,000 architectures) is then used up for certain.
        """
        batch: list[Architecture] = []
        while len(batch) < n and self._to_repeat:
            batch.append(self._to_repeat.popleft())
        while len(batch) < n:
            given = next((one for one in self._starting if self._is_new(one)), None)
            architecture = self._propose() if given is None else self._propose_given(given)
            if architecture is None:
                break
            self._pending[architecture] = None
            self._know_behaviour(architecture)
            batch.append(architecture)
        return batch

    def use_fidelity(self, full: int) -> None:
        """Say how thoroughly the search scores its candidates; before the first ask, and not part of the state.

        Args:
            full: validation batches, at least 1.
        """
        self.fidelity = full

    def fidelity_of(self, architecture: Architecture) -> int:
        """How thoroughly a candidate that was asked and not told yet is to be scored.

        A strategy that tries candidates at lower fidelities first overrides this; it may then ask the same candidate
        again, at a higher fidelity, once the lower one was told.

        Returns:
            Validation batches, from 1 to :attr:`fidelity`.
        """
        return self.fidelity

    @property
    def waiting(self) -> bool:
        """Whether an :meth:`ask` that gave less than was wanted may give more once what was asked is told."""
        return False

    def tell(self, measurements: Sequence[Measurement]) -> None:
        """Report what candidates scored, in the order in which the strategy shall learn it.

        Candidates that were never asked are welcome (a warm start); what was told before is ignored.
        """
        for measurement in measurements:
            architecture = measurement.architecture
            if architecture in self._told:
                continue
            self._pending.pop(architecture, None)
            if architecture in self._to_repeat:
                self._to_repeat.remove(architecture)
            self._told[architecture] = None
            self._know_behaviour(architecture)
            self._observe(measurement)

    def state_dict(self) -> dict[str, Any]:
        """Everything the strategy needs to go on, as JSON-native values."""
        version, internal, gauss = self._rng.getstate()
        return {
            "format": STATE_FORMAT,
            "strategy": self.name,
            "seed": self.seed,
            "rng": [version, list(internal), gauss],
            "drawn": self._drawn,
            "pending": [str(architecture) for architecture in self._pending],
            "told": [str(architecture) for architecture in self._told],
            "own": self._state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state that :meth:`state_dict` of an equally constructed strategy gave.

        Raises:
            UserError: the state belongs to another strategy or to another version of its format.
        """
        if state.get("format") != STATE_FORMAT:
            raise UserError(
                f"the saved search state has format {state.get('format')}, expected {STATE_FORMAT}: another version of "
                "netsuke wrote it, which goes on otherwise; continue with that version, or remove the state to start "
                "afresh, which scores nothing again that the results hold"
            )
        found = (state.get("strategy"), state.get("seed"))
        expected = (self.name, self.seed)
        if found != expected:
            raise UserError(
                f"the saved search state has (strategy, seed) = {found}, expected {expected}: "
                "continue it with the settings it was made with, or remove it to start afresh"
            )
        version, internal, gauss = state["rng"]
        self._rng.setstate((version, tuple(internal), gauss))
        self._pending = {self.space.parse(text): None for text in state["pending"]}
        self._told = {self.space.parse(text): None for text in state["told"]}
        self._to_repeat = deque(self._pending)
        self._behaviours = set()
        for architecture in (*self._pending, *self._told):
            self._know_behaviour(architecture)
        self._drawn = int(state["drawn"])
        self._load_state(state["own"])

    @abstractmethod
    def _propose(self) -> Architecture | None:
        """The next candidate: :meth:`_is_new` and feasible; ``None`` if there is none left."""

    def _propose_given(self, architecture: Architecture) -> Architecture:
        """Ask a starting candidate; a strategy that keeps books of its proposals overrides this."""
        return architecture

    @abstractmethod
    def _observe(self, measurement: Measurement) -> None:
        """Learn one measurement; each architecture comes at most once."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """The subclass's own state, JSON-native."""

    @abstractmethod
    def _load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`_state` gave; base-class attributes are restored already."""

    def _is_new(self, architecture: Architecture) -> bool:
        """Whether neither the architecture was asked or told, nor one that behaves alike."""
        if architecture in self._pending or architecture in self._told:
            return False
        return not self._tells_behaviours or self.space.behaviour(architecture) not in self._behaviours

    def _know_behaviour(self, architecture: Architecture) -> None:
        """Remember what an architecture computes, so that nothing that behaves alike is asked."""
        if self._tells_behaviours:
            self._behaviours.add(self.space.behaviour(architecture))

    @cached_property
    def _tells_behaviours(self) -> bool:
        """Whether different architectures of the space can behave alike at all; nothing is asked if they cannot."""
        return type(self.space).behaviour is not SearchSpace.behaviour

    def _values(self, measurement: Measurement) -> list[float]:
        """The values of a successful measurement in the order of :attr:`objectives`."""
        if measurement.objectives is None:
            raise ValueError(f"{measurement.architecture} failed and has no values")
        return [float(measurement.objectives[objective.name]) for objective in self.objectives]

    def _explore(self) -> Architecture | None:
        """A new feasible architecture at random, by ever stronger means; ``None`` if none is found.

        Draws first, by the law that the option ``sampling`` names; where feasible ones are rare, then a walk of
        mutations that never raises the violation; where the space is small enough to be enumerated, a random one of all
        that is left.
        """
        for _ in range(self.options.max_tries):
            drawn = self._draw()
            if self._is_new(drawn) and self.feasibility(drawn):
                return drawn
        walked = self._walk(self._draw())
        if walked is not None:
            return walked
        if self.space.cardinality() > ENUMERATION_LIMIT:
            return None
        left = [
            architecture
            for architecture in enumerate_architectures(self.space)
            if self._is_new(architecture) and self.feasibility(architecture)
        ]
        return self._rng.choice(left) if left else None

    def _draw(self) -> Architecture:
        """A random architecture of the space by the law that the option ``sampling`` names."""
        if self.options.sampling == "decisions":
            decided: Architecture = self.space.decide(self._rng)
            return decided
        by = size_objective(self.objectives, self.cheap) if self.options.sampling == "sizes" else None
        if by is None:
            sampled: Architecture = self.space.sample(self._rng)
            return sampled
        if self._drawer is None:
            low, high = size_range(self.space, self.cheap, by, self.feasibility.constraints, self.seed)
            self._drawer = SizeDrawer(self.space, self.cheap, by, low, high)
        self._drawn += 1
        return self._drawer.draw(self._drawn - 1, self._rng)

    def _walk(self, start: Architecture) -> Architecture | None:
        """Mutate from ``start`` without raising the violation until something new and feasible is met, or give up."""
        current, violation = start, self.feasibility.violation(start)
        for _ in range(20 * self.options.max_tries):
            neighbour = self.space.mutate(current, self._rng)
            neighbour_violation = self.feasibility.violation(neighbour)
            if neighbour_violation > violation:
                continue
            current, violation = neighbour, neighbour_violation
            if violation <= 0 and self._is_new(current):
                return current
        return None


def parse_options(name: str, options_class: type[StrategyOptions], options: Mapping[str, Any]) -> StrategyOptions:
    """Validate a strategy's options.

    Raises:
        UserError: an option is unknown (the nearest known one is suggested) or has a wrong value.
    """
    try:
        return options_class(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"strategy {name} has no option {key!r}{suggestion(key, options_class.model_fields)}"
            ) from None
        raise UserError(f"strategy {name}, option {key}: found {first['input']!r}, {first['msg'].lower()}") from None


def suggestion(found: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(found, names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; expected one of {', '.join(sorted(names))}"
