from __future__ import annotations

import json
import random
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Score, score_safely
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.search_loop import Batch, Origin, SearchLoop, SearchRecord
from orchestrator.objectives import CheapObjectives, Objective
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.testing import ToySpace, toy_loss
from tests.orchestrator.evaluation.toy_evaluation import (
    FULL_FIDELITY,
    STRATEGY_OPTIONS,
    Row,
    RowFile,
    ToyEvaluatorFactory,
    key,
    make_loop,
    row,
    score_of,
)


def local_rows(strategy: str = "regularised_evolution", **options: object) -> list[Row]:
    rows: list[Row] = []
    loop = make_loop(lambda record: rows.append(row(record)), strategy=strategy, **options)  # type: ignore[arg-type]
    evaluate_locally(loop, ToyEvaluatorFactory())
    return sorted(rows)


def answer(loop: SearchLoop, batch: Batch) -> None:
    scores = [
        (one.number, Score("ok", toy_loss(one.architecture) + 1 / one.fidelity, 0.0))  # type: ignore[arg-type]
        for one in batch.proposals
    ]
    loop.receive(batch.number, scores, Origin(pid=1))


class Crowd:
    """Drives a loop like ``actors`` processes of random speed, with time to ask ahead now and then."""

    def __init__(self, loop: SearchLoop, seed: int, actors: int = 3) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.actors = actors
        self.running: list[Batch] = []

    def run(self, answers: int = sys.maxsize) -> None:
        """Until the search is finished, or so many batches have been answered."""
        for _ in range(answers):
            while len(self.running) < self.actors and (batch := self.loop.next_batch()) is not None:
                self.running.append(batch)
            if not self.running:
                assert self.loop.finished
                return
            answer(self.loop, self.running.pop(self.rng.randrange(len(self.running))))
            if self.rng.random() < 0.5:
                self.loop.prepare()


@pytest.mark.parametrize("strategy", sorted(STRATEGY_OPTIONS))
def test_evaluates_the_budget_once_each(strategy: str) -> None:
    rows = local_rows(strategy, budget=41, batch_size=4)
    assert [number for number, *_ in rows] == list(range(41))
    assert len({(text, fidelity) for _, text, fidelity, *_ in rows}) == 41


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), actors=st.integers(1, 5))
def test_order_of_arrival_changes_nothing(seed: int, actors: int) -> None:
    rows: list[Row] = []
    Crowd(make_loop(lambda record: rows.append(row(record))), seed, actors).run()
    assert sorted(rows) == local_rows()


def test_in_arrival_mode_order_matters() -> None:
    tables = set()
    for seed in range(5):
        rows: list[Row] = []
        loop = make_loop(lambda record, rows=rows: rows.append(row(record)), deterministic=False)  # type: ignore[misc]
        Crowd(loop, seed, 4).run()
        assert len(rows) == 40
        tables.add(tuple(sorted(rows)))
    assert len(tables) > 1


@settings(max_examples=25, deadline=None)
@given(
    strategy=st.sampled_from(sorted(STRATEGY_OPTIONS)),
    seed=st.integers(0, 1000),
    saves=st.integers(1, 3),
    answers=st.integers(1, 7),
    unsaved=st.integers(0, 3),
    keep_state=st.booleans(),
)
def test_killed_anywhere_and_resumed_ends_with_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    strategy: str,
    seed: int,
    saves: int,
    answers: int,
    unsaved: int,
    keep_state: bool,
) -> None:
    folder = tmp_path_factory.mktemp("search")
    rows = RowFile(folder / "rows.jsonl")
    loop = make_loop(rows.append, strategy=strategy, state_file=folder / "state.json")
    crowd = Crowd(loop, seed)
    for _ in range(saves):
        crowd.run(answers=answers)
        loop.save()
    crowd.run(answers=unsaved)  # these rows are newer than the state

    if not keep_state:
        (folder / "state.json").unlink()
    before = rows.rows()
    loop = make_loop(rows.append, strategy=strategy, state_file=folder / "state.json")
    loop.preload({key(saved): score_of(saved) for saved in before}, recorded=True)
    assert loop.resume() is keep_state
    Crowd(loop, seed + 1).run()
    assert loop.progress.evaluated == 40
    assert sorted(rows.rows()) == local_rows(strategy)


def test_resumes_without_rows_from_the_state_alone(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    rows: list[Row] = []
    loop = make_loop(lambda record: rows.append(row(record)), state_file=state_file)
    Crowd(loop, 1).run(answers=9)
    loop.save()
    loop = make_loop(lambda record: rows.append(row(record)), state_file=state_file)
    assert loop.resume()
    Crowd(loop, 2).run()
    assert sorted(rows) == local_rows()


def test_known_scores_are_not_asked_for_but_recorded() -> None:
    expected = local_rows()
    records: list[SearchRecord] = []
    loop = make_loop(records.append)
    loop.preload({key(saved): score_of(saved) for saved in expected[:30]}, recorded=False)
    sent = []
    while (batch := loop.next_batch()) is not None:
        sent += [str(proposal.architecture) for proposal in batch.proposals]
        answer(loop, batch)
    assert sent == [text for _, text, *_ in expected[30:]]
    assert sorted(map(row, records)) == expected
    assert sum(record.known for record in records) == 30


def test_failed_candidates_are_recorded_once_with_their_reason() -> None:
    victim = local_rows()[5][1]
    records: list[SearchRecord] = []
    evaluate_locally(make_loop(records.append), ToyEvaluatorFactory(fails=victim))
    failed = [record for record in records if record.status == "failed"]
    assert [str(record.architecture) for record in failed] == [victim]
    assert failed[0].score.error == f"ArithmeticError: {victim} diverged"
    assert failed[0].score.loss is None
    assert failed[0].cheap["parameters"] > 0
    assert len(records) == 40


def test_a_used_up_space_ends_the_search() -> None:
    space = ToySpace(layers=2, widths=(4, 8))
    records: list[SearchRecord] = []
    loop = make_loop(records.append, budget=1000, batch_size=5, space=space)
    evaluate_locally(loop, ToyEvaluatorFactory())
    assert loop.finished
    assert len(records) == space.cardinality()


def test_records_are_durable_before_the_state(tmp_path: Path) -> None:
    buffer: list[Row] = []
    durable: list[Row] = []

    def flush() -> None:
        durable.extend(buffer)
        buffer.clear()

    state_file = tmp_path / "state.json"
    loop = make_loop(lambda record: buffer.append(row(record)), state_file=state_file, before_save=flush)
    Crowd(loop, 0).run(answers=7)
    loop.save()
    state = json.loads(state_file.read_text())
    assert state["evaluated"] == len(durable) == 14


def test_a_record_that_cannot_be_written_is_not_counted(tmp_path: Path) -> None:
    def refuse(record: SearchRecord) -> None:
        if record.proposal.number == 3:
            raise OSError("no space left on device")

    loop = make_loop(refuse, state_file=tmp_path / "state.json")
    with pytest.raises(OSError, match="no space"):
        evaluate_locally(loop, ToyEvaluatorFactory())
    records: list[SearchRecord] = []
    loop = make_loop(records.append, state_file=tmp_path / "state.json")
    loop.resume()
    evaluate_locally(loop, ToyEvaluatorFactory())
    assert [record.proposal.number for record in records] == list(range(3, 40))


def test_progress_counts() -> None:
    seen = []
    loop = make_loop(budget=10)
    evaluate_locally(loop, ToyEvaluatorFactory(), progress=seen.append)
    assert [progress.evaluated for progress in seen] == [2, 4, 6, 8, 10]
    assert seen[-1].budget == 10
    assert seen[-1].failed == 0
    assert seen[-1].best_loss == min(loss for *_, loss in local_rows(budget=10) if loss is not None)


def test_a_state_with_other_settings_is_refused(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    make_loop(state_file=state_file).save()
    with pytest.raises(UserError, match="batch_size = 2, now it is 3"):
        make_loop(state_file=state_file, batch_size=3).resume()
    state_file.write_text('{"settings": ')
    with pytest.raises(UserError, match="not readable"):
        make_loop(state_file=state_file).resume()


def test_impossible_searches_are_refused() -> None:
    space = ToySpace()
    with pytest.raises(UserError, match="budget is 0"):
        make_loop(budget=0)
    with pytest.raises(UserError, match="'accuracy' is not measured"):
        SearchLoop(RandomSearch(space, [Objective("accuracy")], [], 0), CheapObjectives(space), 5)


@pytest.mark.parametrize("strategy", sorted(STRATEGY_OPTIONS))
def test_every_strategy_survives_losses_that_are_not_numbers(strategy: str) -> None:
    records: list[SearchRecord] = []
    evaluate_locally(make_loop(records.append, strategy=strategy, budget=60), ToyEvaluatorFactory(diverges="W"))
    diverged = ["W" in str(record.architecture) for record in records]
    assert [record.status == "failed" for record in records] == diverged
    assert {record.score.error for record in records if record.status == "failed"} == {"the loss is nan"}
    assert any(diverged)
    assert not all(diverged)
    assert len({record.proposal.key for record in records}) == len(records) == 60


def test_a_batch_without_room_is_scored_one_by_one() -> None:
    class Crowded:
        def score(self, architectures: list[str], fidelity: int) -> list[Score]:
            if len(architectures) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 79 GiB")
            if architectures == ["huge"]:
                raise MemoryError
            return [Score("ok", float(one), 0.5) for one in architectures]

    scores = score_safely(Crowded(), ["0.25", "huge", "0.5"], 1)
    assert [score.status for score in scores] == ["ok", "failed", "ok"]
    assert scores[1].error == "MemoryError"
    assert [scores[0].loss, scores[2].loss] == [0.25, 0.5]


def test_nothing_is_held_of_a_call_that_failed() -> None:
    class Large:
        """Stands for the activations of a forward pass."""

    class Forgetful:
        def __init__(self) -> None:
            self.held: list[weakref.ref[Large]] = []

        def score(self, architectures: list[str], fidelity: int) -> list[Score]:
            assert not any(held() for held in self.held), "there is no room: the failed call has not been forgotten"
            activations = Large()
            self.held.append(weakref.ref(activations))
            if len(architectures) > 1:
                raise MemoryError(repr(activations))
            return [Score("ok", 1.0, 0.5)]

    assert [score.status for score in score_safely(Forgetful(), ["one", "two"], 1)] == ["ok", "ok"]


def test_scoring_survives_a_broken_evaluator() -> None:
    class Broken:
        def score(self, architectures: list[str], fidelity: int) -> list[Score]:
            if "short" in architectures:
                return []
            return [Score("ok", float(architecture), 0.5) for architecture in architectures]

    scores = score_safely(Broken(), ["0.25", "short", "nan", "inf", "word"], 1)
    assert [score.status for score in scores] == ["ok", "failed", "failed", "failed", "failed"]
    assert scores[0] == Score("ok", 0.25, 0.5)
    reasons = ["0 scores for 1", "the loss is nan", "the loss is inf", "ValueError: could not convert"]
    assert all(reason in score.error for reason, score in zip(reasons, scores[1:], strict=True))


# --- the rule to stop -----------------------------------------------------------------------------------------------


def improvements(rows: list[Row]) -> int:
    """How many of the last rows, in the order of asking, came after the lowest loss at full fidelity."""
    best, since = None, 0
    for *_, fidelity, _, loss in sorted(rows):
        if loss is not None and fidelity == FULL_FIDELITY and (best is None or loss < best):
            best, since = loss, 0
        else:
            since += 1
    return since


@pytest.mark.parametrize("strategy", ["random", "successive_halving"])
def test_a_search_ends_after_so_many_without_a_lower_loss(strategy: str) -> None:
    rows = local_rows(strategy, budget=200, batch_size=2, window=3, stop=15)
    assert len(rows) < 200
    assert improvements(rows) <= 15 + 2 * 4, "what was under way is still scored"
    assert len(local_rows(strategy, budget=60, batch_size=2, window=3, stop=1000)) == 60


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), actors=st.integers(1, 5), answers=st.integers(1, 12))
def test_where_a_search_stops_depends_on_no_actor_and_no_interruption(
    tmp_path_factory: pytest.TempPathFactory, seed: int, actors: int, answers: int
) -> None:
    expected = local_rows(budget=200, stop=12)
    assert len(expected) < 200
    folder = tmp_path_factory.mktemp("search")
    rows = RowFile(folder / "rows.jsonl")
    loop = make_loop(rows.append, budget=200, stop=12, state_file=folder / "state.json")
    Crowd(loop, seed, actors).run(answers=answers)
    loop.save()
    loop = make_loop(rows.append, budget=200, stop=12, state_file=folder / "state.json")
    loop.preload({key(saved): score_of(saved) for saved in rows.rows()}, recorded=True)
    loop.resume()
    Crowd(loop, seed + 1, actors).run()
    assert sorted(rows.rows()) == expected
