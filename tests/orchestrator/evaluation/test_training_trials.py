"""Whole trainings as trials of a real Ray Tune: rows, checkpoints, a killed actor, a failure, and a second start."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from orchestrator.errors import RunError
from orchestrator.evaluation.training_trials import train_as_trials
from tests.trainers.sluggish_task import SluggishFactory
from tests.trainers.test_ray_train import losses, steps_by_process
from trainers.errors import TrainingInputError
from trainers.ray_train import Intervals, Scaling
from trainers.task import WEIGHTS, Row

INTERVALS = Intervals(checkpoint_every=4, report_every=2)

pytestmark = pytest.mark.timeout(300)


class Trials:
    """Trainings and what their callbacks were given."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.rows: dict[int, list[Row]] = {}
        self.steps: list[int] = []

    def run(self, factories: list[SluggishFactory], max_failures: int = 1) -> list[float]:
        checkpoints = train_as_trials(
            factories,
            name="trainings",
            storage=self.storage,
            scaling=Scaling(2, 1, 0, max_failures),
            intervals=INTERVALS,
            on_rows=lambda number, rows: self.rows.setdefault(number, []).extend(rows),
            on_steps=self.steps.append,
        )
        return [float(load_file(checkpoint / WEIGHTS)["sum"]) for checkpoint in checkpoints]


@pytest.fixture
def trials(local_ray, tmp_path):
    return Trials(tmp_path / "storage")


def test_a_killed_actor_is_replaced_and_others_train_on(trials, tmp_path):
    logs = [tmp_path / "first", tmp_path / "second"]

    def kill_in_step_5() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for pid, steps in (steps_by_process(logs[0]) if logs[0].exists() else {}).items():
                if 5 in steps:
                    os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_in_step_5)
    killer.start()
    sums = trials.run([SluggishFactory(logs[0], steps=8, seconds=0.2), SluggishFactory(logs[1], steps=6)])
    killer.join()
    assert sums == [sum(range(8)), sum(range(6))]
    first, second = steps_by_process(logs[0]).values()
    assert first == [0, 1, 2, 3, 4, 5]
    assert second == [4, 5, 6, 7], "did not go on from its last checkpoint"
    assert list(steps_by_process(logs[1]).values()) == [[0, 1, 2, 3, 4, 5]]
    assert losses(trials.rows[0]) == {steps: sum(range(steps)) for steps in (2, 4, 6, 8)}
    assert losses(trials.rows[1]) == {steps: sum(range(steps)) for steps in (2, 4, 6)}
    assert trials.steps[-1] == 14

    again = Trials(trials.storage)
    assert again.run([SluggishFactory(logs[0], steps=8), SluggishFactory(logs[1], steps=6)]) == sums
    assert losses(again.rows[0]) == losses(trials.rows[0]), "a start with nothing to do tells its rows"
    assert len(steps_by_process(logs[0])) == 2, "what had ended was trained again"


def test_a_failure_is_one_line_and_a_second_start_goes_on(trials, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RunError) as raised:
        trials.run([SluggishFactory(log, steps=8, fails_at=5)], max_failures=0)
    message = str(raised.value)
    assert message.startswith("the trainings trainings did not end: ArithmeticError: ")
    assert "step 5 diverged" in message
    assert message.endswith("run the same command again to go on")
    assert "\n" not in message
    assert trials.run([SluggishFactory(log, steps=8)]) == [sum(range(8))]
    _, second = steps_by_process(log).values()
    assert second == [4, 5, 6, 7]


def test_a_mistake_is_told_as_it_is(trials, tmp_path):
    with pytest.raises(TrainingInputError) as raised:
        trials.run([SluggishFactory(tmp_path / "log", mistake="trainer")], max_failures=3)
    assert str(raised.value) == "corpus.source: found nothing, expected text"
    assert len(steps_by_process(tmp_path / "log")) == 1
