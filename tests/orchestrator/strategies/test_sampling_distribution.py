"""The search by learned distributions sits the exam, and finds what was planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from orchestrator.objectives import LOSS, PARAMETERS, Constraint, Objective
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.sampling_distribution import DistributionSearch
from orchestrator.testing import StrategyExam, ToySpace
from tests.orchestrator.strategies.toy_distribution import SampledToySpace


class TestDistributionSearch(StrategyExam):
    strategy_class = DistributionSearch
    options: ClassVar[dict[str, Any]] = {"cost_weights": [0.0], "certainty": 0.6, "learning_rate": 0.4, "paths": 5}

    def make_strategy(
        self,
        seed: int = 0,
        space: ToySpace | None = None,
        objectives: Sequence[Objective] | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Strategy:
        given = space or ToySpace()
        sampled = SampledToySpace(given.layers, given.widths)
        return super().make_strategy(seed, sampled, objectives or (LOSS, PARAMETERS), constraints)
