"""Successive halving sits the exam, and spends its budget as it should."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest

from orchestrator.evaluation.evaluator import Measurement, Score
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.records import SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives
from orchestrator.strategies.successive_halving import SuccessiveHalving
from orchestrator.testing import StrategyExam, ToySpace, toy_loss


class TestSuccessiveHalving(StrategyExam):
    strategy_class = SuccessiveHalving
    options: ClassVar[dict[str, Any]] = {"bracket": 9, "eta": 3, "rungs": 3}


class TestSuccessiveHalvingByTwo(TestSuccessiveHalving):
    options: ClassVar[dict[str, Any]] = {"bracket": 8, "eta": 2, "rungs": 2, "descendants": 1.0}


def measured(architecture: Any) -> Measurement:
    return Measurement(
        architecture, {"loss": toy_loss(architecture), **CheapObjectives(ToySpace()).values(architecture)}
    )


def make(full: int = 9, **options: Any) -> SuccessiveHalving:
    strategy = SuccessiveHalving(ToySpace(), (LOSS, PARAMETERS), (), 0, **options)
    strategy.use_fidelity(full)
    return strategy


@pytest.mark.parametrize(
    ("full", "rungs", "levels"),
    [(9, 3, [1, 3, 9]), (16, 3, [1, 5, 16]), (2, 3, [1, 2]), (1, 3, [1]), (9, 1, [9])],
)
def test_fidelities_grow_and_none_comes_twice(full: int, rungs: int, levels: list[int]) -> None:
    assert make(full, rungs=rungs, eta=3).levels == levels


def test_a_bracket_becomes_smaller_as_its_fidelity_grows() -> None:
    strategy, asked = make(bracket=9, eta=3, rungs=3, descendants=0.0), []
    for _ in range(13):
        (one,) = strategy.ask(1)
        asked.append(strategy.fidelity_of(one))
        strategy.tell([measured(one)])
    assert asked == [1] * 9 + [3] * 3 + [9]


def test_the_best_by_rank_go_on() -> None:
    strategy = make(bracket=6, eta=3, rungs=2)
    first = strategy.ask(6)
    losses = dict(zip(first, [5.0, 1.0, 4.0, 2.0, 6.0, 3.0], strict=True))
    sizes = dict(zip(first, [5.0, 9.0, 1.0, 9.5, 7.0, 9.7], strict=True))
    strategy.tell([Measurement(one, {"loss": losses[one], "parameters": sizes[one]}) for one in first])
    promoted = strategy.ask(2)
    assert set(promoted) == {first[1], first[2]}, "the ends of the front"
    assert {strategy.fidelity_of(one) for one in promoted} == {9}


def test_who_failed_does_not_go_on() -> None:
    strategy = make(bracket=4, eta=2, rungs=2)
    first = strategy.ask(4)
    strategy.tell([Measurement(one, None, "failed") for one in first])
    assert not set(strategy.ask(4)) & set(first)


class CountingEvaluator:
    """Scores toy architectures, and counts batches of work."""

    def __init__(self) -> None:
        self.scored: Counter[tuple[str, int]] = Counter()

    def score(self, architectures: Any, fidelity: int) -> list[Score]:
        self.scored.update((str(one), fidelity) for one in architectures)
        return [Score("ok", toy_loss(one) + 0.1 / fidelity, 0.0) for one in architectures]


def run(budget: int, space: ToySpace, window: int = 4) -> tuple[list[SearchRecord], CountingEvaluator]:
    records: list[SearchRecord] = []
    evaluator = CountingEvaluator()
    strategy = SuccessiveHalving(space, (LOSS,), (), 3, bracket=9, eta=3, rungs=3)
    loop = SearchLoop(
        strategy, CheapObjectives(space), budget, fidelity=9, batch_size=4, window=window, on_result=records.append
    )
    make_evaluator: Any = lambda: evaluator  # noqa: E731
    evaluate_locally(loop, make_evaluator)
    return records, evaluator


def test_a_search_records_each_fidelity_once() -> None:
    records, evaluator = run(100, ToySpace())
    assert len(records) == 100
    assert set(evaluator.scored.values()) == {1}
    assert {record.proposal.fidelity for record in records} == {1, 3, 9}
    assert [record.score.loss for record in records] == [
        toy_loss(record.architecture) + 0.1 / record.proposal.fidelity  # type: ignore[arg-type]
        for record in records
    ]


def test_a_used_up_space_still_lets_the_last_bracket_come_to_its_end() -> None:
    """Nothing new is left, but rungs wait for their members: the search must not end before the best went on."""
    space = ToySpace(layers=2, widths=(4, 8))
    records, _ = run(1000, space)
    assert Counter(record.proposal.fidelity for record in records)[1] == space.cardinality()
    full = [record for record in records if record.proposal.fidelity == 9]
    best = min(toy_loss(record.architecture) for record in records)  # type: ignore[arg-type]
    assert min(toy_loss(record.architecture) for record in full) == best  # type: ignore[arg-type]
