"""The predictor-guided strategy sits the exam with every regressor, and screens better than chance."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS
from orchestrator.strategies.predictor_guided import REGRESSORS, PredictorGuided
from orchestrator.testing import StrategyExam, ToySpace, toy_loss

FEW: dict[str, Any] = {"start": 20, "offspring": 60, "chosen": 8}


class TestPredictorGuided(StrategyExam):
    strategy_class = PredictorGuided
    options: ClassVar[dict[str, Any]] = {**FEW, "regressor_options": {"n_estimators": 10}}


class TestPredictorGuidedByRidge(TestPredictorGuided):
    options: ClassVar[dict[str, Any]] = {**FEW, "regressor": "ridge"}


class TestPredictorGuidedByGaussianProcess(TestPredictorGuided):
    options: ClassVar[dict[str, Any]] = {**FEW, "regressor": "gaussian_process", "regressor_options": {"alpha": 1e-6}}
    evaluations = 60


@pytest.mark.parametrize("regressor", sorted(REGRESSORS))
def test_what_a_screening_chooses_is_better_than_what_it_chose_from(regressor: str) -> None:
    strategy = PredictorGuided(ToySpace(), (LOSS,), (), 0, start=60, offspring=200, chosen=20, regressor=regressor)
    strategy.tell([Measurement(one, {"loss": toy_loss(one)}) for one in strategy.ask(60)])  # type: ignore[arg-type]
    chosen = strategy._screen()
    bred = strategy._breed()
    mean = lambda found: sum(toy_loss(one) for one in found) / len(found)  # noqa: E731
    assert mean(chosen) < mean(bred)


def test_mistakes_in_options_are_named() -> None:
    with pytest.raises(UserError, match="has no regressor 'ridgy'; did you mean 'ridge'"):
        PredictorGuided(ToySpace(), (LOSS,), (), 0, regressor="ridgy")
    with pytest.raises(UserError, match=r"regressor_options of ridge: .*alpha_"):
        PredictorGuided(ToySpace(), (LOSS,), (), 0, regressor="ridge", regressor_options={"alpha_": 1})
