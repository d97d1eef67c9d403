"""Items on real Ray actors: each result once, dead actors replaced, mistakes raised as they are."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from cluster.connect import connect
from orchestrator.errors import RunError, UserError
from orchestrator.evaluation.actor_pool import run_here, run_on_actors
from trainers.errors import TrainingInputError


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with connect(num_cpus=2):
        yield


@dataclass(frozen=True)
class MakeSquarer:
    """Squares numbers, leaving a file for each, named after number and process."""

    folder: Path
    seconds: float = 0.0

    def __call__(self):
        def square(number: int) -> int:
            (self.folder / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
            time.sleep(self.seconds)
            return number * number

        return square


@dataclass(frozen=True)
class MakeCulprit:
    """Ends its process, or raises, at one number; at -1 already when it is made."""

    culprit: int
    error: Exception | None = None

    def __call__(self):
        def work(number: int) -> int:
            if number == self.culprit:
                if self.error is not None:
                    raise self.error
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        if self.culprit == -1:
            work(-1)
        return work


def at_work(folder: Path, done: list[int]) -> int:
    """The process that began its item last, of those whose result has not arrived."""
    while True:
        begun = [tuple(map(int, file.name.split("-"))) for file in folder.iterdir()]
        busy = [(began, pid) for item, pid, began in begun if item not in done]
        if busy:
            return max(busy)[1]
        time.sleep(0.01)


def test_every_result_comes_once_and_work_is_shared(tmp_path):
    found = []
    run_on_actors(
        MakeSquarer(tmp_path, 0.2), range(8), actors=2, on_result=lambda number, result: found.append((number, result))
    )
    assert sorted(found) == [(number, number * number) for number in range(8)]
    assert len({file.name.split("-")[1] for file in tmp_path.iterdir()}) == 2


def test_here_and_on_actors_are_the_same_but_for_the_order(tmp_path):
    (tmp_path / "a").mkdir()
    here, there = [], []
    run_here(MakeSquarer(tmp_path), range(4), on_result=lambda *result: here.append(result))
    run_on_actors(MakeSquarer(tmp_path), range(4), actors=2, on_result=lambda *result: there.append(result))
    assert here == sorted(there)


def test_a_killed_actor_loses_nothing_and_repeats_nothing_that_arrived(tmp_path):
    found = []

    def on_result(number: int, result: int) -> None:
        found.append(number)
        if len(found) == 2:
            os.kill(at_work(tmp_path, found), signal.SIGKILL)

    run_on_actors(MakeSquarer(tmp_path, 0.8), range(5), actors=2, on_result=on_result)
    assert sorted(found) == list(range(5))
    begun = [int(file.name.split("-")[0]) for file in tmp_path.iterdir()]
    repeated = {item for item in begun if begun.count(item) > 1}
    assert len(repeated) == 1  # what the killed process was at
    assert len({file.name.split("-")[1] for file in tmp_path.iterdir()}) == 3


def test_an_item_that_ends_every_actor_is_named_after_three_attempts():
    found = []
    with pytest.raises(RunError, match="item 1 lost its actor at each of 3 attempts"):
        run_on_actors(MakeCulprit(1), range(3), actors=1, on_result=lambda number, result: found.append(number))
    assert found == [0]


@pytest.mark.parametrize("culprit", [-1, 1])
def test_a_users_mistake_is_raised_as_it_is(culprit):
    with pytest.raises(TrainingInputError, match=r"^teacher\.source: gone$"):
        run_on_actors(
            MakeCulprit(culprit, TrainingInputError("teacher.source: gone")),
            range(3),
            actors=2,
            on_result=lambda number, result: None,
        )


def test_any_other_error_is_one_line_with_its_name():
    with pytest.raises(RunError, match="a worker failed: ZeroDivisionError: by zero, twice"):
        run_on_actors(MakeCulprit(0, ZeroDivisionError("by zero,\ntwice")), [0], actors=1, on_result=lambda *_: None)


def test_actors_are_gone_afterwards_also_when_a_result_cannot_be_taken():
    def refuse(number: int, result: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_actors(MakeCulprit(99), range(3), actors=2, on_result=refuse)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2.0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_cluster_that_is_too_small_is_said_before_anything_starts():
    with pytest.raises(UserError, match="needs 64 CPU, the cluster has 2; lower cpus_per_actor"):
        run_on_actors(MakeCulprit(99), [1], actors=1, cpus_per_actor=64, on_result=lambda *_: None)


def test_nothing_to_do_starts_nothing():
    run_on_actors(MakeCulprit(-1, ValueError("never")), [], actors=2, on_result=lambda *_: None)
    run_here(MakeCulprit(-1, ValueError("never")), [], on_result=lambda *_: None)
