"""Exams that any search space, strategy and results store can sit: base classes for pytest.

A third party's test module subclasses one, names what is examined, and pytest collects the questions::

    class TestMyStrategy(StrategyExam):
        strategy_class = MyStrategy
"""

from orchestrator.testing.results_exam import ResultsStoreExam
from orchestrator.testing.space_exam import BlockwiseSpaceExam, SpaceExam
from orchestrator.testing.strategy_exam import StrategyExam
from orchestrator.testing.toy_space import ToyArchitecture, ToySpace, toy_loss

__all__ = [
    "BlockwiseSpaceExam",
    "ResultsStoreExam",
    "SpaceExam",
    "StrategyExam",
    "ToyArchitecture",
    "ToySpace",
    "toy_loss",
]
