"""Exact selection: the candidates of lowest summed block loss within each budget, scored whole (NAS-BERT, 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import Constraint
from orchestrator.solving.exact import Solver
from orchestrator.solving.infeasibility import ImpossibleBudgetError
from orchestrator.solving.networks import EmbeddingRule, SolvableNetworks
from orchestrator.strategies.base import Strategy, StrategyOptions
from spaces.architecture import Architecture

_FIRST_TOP = 64


class ExactOptions(StrategyOptions):
    """Options of exact selection.

    Attributes:
        blocks: which scored block architectures may be combined: ``alive``, the survivors of shrinking (all where
            nothing was shrunk), or ``all``.
        loss: what is added up: ``raw`` mean squared errors, as in the paper, or ``normalised`` ones, divided by the
            variance of the teacher's states.
        embedding: the embedding size: by the paper's hand-set ``ladder`` of sizes, ``any`` (the cheapest wins), or a
            number.
    """

    blocks: Literal["alive", "all"] = "alive"
    loss: Literal["raw", "normalised"] = "raw"
    embedding: Literal["ladder", "any"] | int = "ladder"


class ExactSelection(Strategy):
    """Asks, for every budget in turn, the network with the next lowest sum of block losses.

    The sums are proven to be the lowest over all combinations of the scored blocks. Evaluating the candidates whole and
    taking the best of them is the paper's last step. With E evaluations and B budgets, each budget gets its E / B best.
    """

    name: ClassVar[str] = "exact"
    options_class: ClassVar[type[StrategyOptions]] = ExactOptions
    needs_block_tables: ClassVar[bool] = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._streams: list[_Stream] | None = None
        self._next_stream = 0

    def use_tables(self, networks: SolvableNetworks, budgets: Sequence[Sequence[Constraint]]) -> None:
        """Take the tables that are added up; call it before anything is asked.

        Args:
            networks: of the block losses.
            budgets: the limits of each budget; none: one without limits besides the strategy's constraints.
        """
        own = self.feasibility.constraints
        limits = [_limits([*constraints, *own]) for constraints in budgets or [()]]
        self._streams = [_Stream(networks, one, self.options.embedding) for one in limits]

    def _propose(self) -> Architecture | None:
        if self._streams is None:
            raise UserError(f"strategy {self.name}: it needs block losses; score blocks first (tables.block_losses)")
        exhausted = 0
        while exhausted < len(self._streams):
            stream = self._streams[self._next_stream]
            self._next_stream = (self._next_stream + 1) % len(self._streams)
            while (architecture := stream.take()) is not None:
                # What the tables add up and what a network is predicted to cost may differ in the last digit.
                if self._is_new(architecture) and self.feasibility(architecture):
                    return architecture
            exhausted += 1
        return None

    def _observe(self, measurement: Measurement) -> None:
        pass

    def _state(self) -> dict[str, Any]:
        taken = [stream.taken for stream in self._streams or ()]
        return {"next_stream": self._next_stream, "taken": taken}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._next_stream = int(state["next_stream"])
        for stream, taken in zip(self._streams or (), state["taken"], strict=True):
            stream.taken = int(taken)


class _Stream:
    """The networks of one budget, the lowest loss first, solved for as they are asked."""

    def __init__(self, networks: SolvableNetworks, limits: Mapping[str, float], embedding: EmbeddingRule) -> None:
        self._networks, self._limits = networks, limits
        self._solver = Solver(networks.by_rule(embedding, limits))
        self._known: list[Architecture] = []
        self._complete = False
        self.taken = 0

    def take(self) -> Architecture | None:
        """The next network; None if there is none left."""
        while self.taken >= len(self._known) and not self._complete:
            self._solve(max(_FIRST_TOP, 2 * self.taken))
        if self.taken >= len(self._known):
            return None
        self.taken += 1
        return self._known[self.taken - 1]

    def _solve(self, top: int) -> None:
        try:
            found = self._solver.solve(self._limits, top).networks
        except ImpossibleBudgetError:
            found = ()
        self._complete = len(found) < top
        self._known = [self._networks.architecture(network) for network in found]


def _limits(constraints: Sequence[Constraint]) -> dict[str, float]:
    """The tightest limit on each objective."""
    limits: dict[str, float] = {}
    for constraint in constraints:
        limits[constraint.objective] = min(constraint.maximum, limits.get(constraint.objective, constraint.maximum))
    return limits
