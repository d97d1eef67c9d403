"""What a search optimises and what it may not exceed: objectives, constraints, and the objectives that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from orchestrator.errors import UserError
from spaces.architecture import Architecture
from spaces.space import SearchSpace

Direction = Literal["minimise", "maximise"]
CheapFunction = Callable[[Any], float]


@dataclass(frozen=True)
class Objective:
    """One quantity a search optimises.

    Attributes:
        name: the column it has in the results.
        direction: whether smaller or larger is better.
        unit: its unit, "" where it has none.
        cheap: known without a forward pass (by arithmetic or from a table), so it is computed before an evaluation.
    """

    name: str
    direction: Direction = "minimise"
    unit: str = ""
    cheap: bool = False

    @property
    def minimise(self) -> bool:
        """Whether smaller is better."""
        return self.direction == "minimise"


LOSS = Objective("loss")
PARAMETERS = Objective("parameters", unit="1", cheap=True)
ENCODER_PARAMETERS = Objective("encoder_parameters", unit="1", cheap=True)
FLOPS = Objective("flops", unit="1", cheap=True)
LATENCY = Objective("latency_ms", unit="ms", cheap=True)
MEASURED_LATENCY = Objective("measured_latency_ms", unit="ms")
"""Timed on the device for every candidate, where a table is not trusted."""

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective for objective in (LOSS, PARAMETERS, ENCODER_PARAMETERS, FLOPS, LATENCY, MEASURED_LATENCY)
}
"""The objectives a recipe can name."""


@dataclass(frozen=True)
class Constraint:
    """A hard upper limit on a cheap objective; who exceeds it is never evaluated.

    Attributes:
        objective: name of a cheap objective.
        maximum: the largest value allowed, in the objective's unit.
    """

    objective: str
    maximum: float


class CheapObjectives:
    """Computes the objectives that need no forward pass: parameters, FLOPs, and what tables predict.

    Attributes:
        names: of what it computes.
        sequence_length: tokens of the sequence that ``flops`` counts.

    Args:
        space: gives ``parameters``, ``encoder_parameters`` and ``flops`` by arithmetic.
        functions: further cheap objectives, a function of the architecture each (``{"latency_ms": table.predict}``).
        sequence_length: tokens of the sequence that ``flops`` counts.
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        functions: Mapping[str, CheapFunction] | None = None,
        sequence_length: int = 128,
    ) -> None:
        self._space = space
        self._functions = dict(functions or {})
        self.sequence_length = sequence_length
        self._cached = lru_cache(maxsize=1 << 16)(self._compute)
        self.names: tuple[str, ...] = ("parameters", "encoder_parameters", "flops", *self._functions)

    def values(self, architecture: Architecture) -> dict[str, float]:
        """Every cheap objective of ``architecture`` by name, in :attr:`names`' order."""
        return dict(zip(self.names, self._cached(architecture), strict=True))

    def _compute(self, architecture: Architecture) -> tuple[float, ...]:
        cost = self._space.cost(architecture, self.sequence_length)
        predicted = (float(function(architecture)) for function in self._functions.values())
        return (cost.parameters, cost.encoder_parameters, cost.flops, *predicted)


class Feasibility:
    """Tells whether an architecture keeps the hard constraints, and by how much it misses them.

    Args:
        cheap: computes the constrained objectives.
        constraints: limits on objectives that ``cheap`` computes.

    Raises:
        UserError: a constraint is on an objective that is not cheap, or its maximum is not a positive number.
    """

    def __init__(self, cheap: CheapObjectives, constraints: Sequence[Constraint]) -> None:
        for constraint in constraints:
            if constraint.objective not in cheap.names:
                raise UserError(
                    f"constraint on {constraint.objective!r}: only objectives known before an evaluation can be "
                    f"limited, expected one of {', '.join(cheap.names)}"
                )
            if not (math.isfinite(constraint.maximum) and constraint.maximum > 0):
                raise UserError(
                    f"constraint on {constraint.objective}: the maximum is {constraint.maximum}, "
                    "expected a number above 0"
                )
        self._cheap = cheap
        self.constraints = tuple(constraints)

    def __call__(self, architecture: Architecture) -> bool:
        """Whether every constraint holds."""
        return self.violation(architecture) <= 0

    def excesses(self, architecture: Architecture) -> dict[str, float]:
        """For each constrained objective, (value - maximum) / maximum: positive where the constraint is broken."""
        if not self.constraints:
            return {}
        values = self._cheap.values(architecture)
        excesses: dict[str, float] = {}
        for constraint in self.constraints:
            excess = (values[constraint.objective] - constraint.maximum) / constraint.maximum
            excesses[constraint.objective] = max(excess, excesses.get(constraint.objective, -math.inf))
        return excesses

    def violation(self, architecture: Architecture) -> float:
        """The sum of all positive excesses: 0 for a feasible architecture."""
        return sum(max(0.0, excess) for excess in self.excesses(architecture).values())
