"""Random search: the baseline every other strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import Strategy
from spaces.architecture import Architecture


class RandomSearch(Strategy):
    """Asks new feasible samples of the space and learns nothing."""

    name: ClassVar[str] = "random"

    def _propose(self) -> Architecture | None:
        return self._explore()

    def _observe(self, measurement: Measurement) -> None:
        pass

    def _state(self) -> dict[str, Any]:
        return {}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        pass
