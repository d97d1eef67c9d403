"""The adapter to Ray Train on a real local Ray: rows, checkpoints, kills, mistakes and two workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cluster.connect import ClusterInfo
from tests.spaces.microscopic import OPTIONS
from tests.trainers.blockwise_tasks import make_settings
from tests.trainers.corpora import make_corpus, make_documents
from tests.trainers.sluggish_task import SluggishFactory
from tests.trainers.teachers import save_teacher
from trainers.blockwise import BlockwiseFactory
from trainers.errors import TrainingError, TrainingInputError
from trainers.ray_train import Intervals, Scaling, train_on_ray
from trainers.task import WEIGHTS, Row, TaskFactory, run_locally

INTERVALS = Intervals(checkpoint_every=2, report_every=4)


class Training:
    """One training and what its callbacks were given."""

    def __init__(self, cluster: ClusterInfo, storage: Path) -> None:
        self.cluster = cluster
        self.storage = storage
        self.rows: list[Row] = []
        self.on_rows = self.rows.extend
        self.progress: list[int] = []
        self.notes: list[str] = []

    def run(self, factory: TaskFactory, intervals: Intervals = INTERVALS, **options: Any) -> Path:
        scaling = {"workers": 1, "cpus_per_worker": 1, "max_failures": 1} | options
        return train_on_ray(
            factory,
            name="training",
            storage=self.storage,
            scaling=Scaling(**scaling),
            intervals=intervals,
            cluster=self.cluster,
            on_rows=self.on_rows,
            on_progress=self.progress.append,
            on_note=self.notes.append,
        )


@pytest.fixture
def training(local_ray: ClusterInfo, tmp_path: Path) -> Training:
    return Training(local_ray, tmp_path / "storage")


def steps_by_process(log: Path) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for line in log.read_text().splitlines():
        pid, step = map(int, line.split())
        steps.setdefault(pid, []).append(step)
    return steps


def losses(rows: list[Row]) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows}


def test_a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint(training, tmp_path):
    log = tmp_path / "log"

    def kill_in_step_5() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for pid, steps in (steps_by_process(log) if log.exists() else {}).items():
                if 5 in steps:
                    os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_in_step_5)
    killer.start()
    checkpoint = training.run(SluggishFactory(log, steps=8, seconds=0.2))
    killer.join()
    assert sorted(path.name for path in training.storage.iterdir()) == ["training"], "unsent checkpoints were left"
    first, second = steps_by_process(log).values()
    assert first == [0, 1, 2, 3, 4, 5]
    assert second[0] in (2, 4), "went on from neither of the last two checkpoints"
    assert second[-1] == 7
    assert float(load_file(checkpoint / WEIGHTS)["sum"]) == sum(range(8))
    assert losses(training.rows) == {4: sum(range(4)), 8: sum(range(8))}


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("trainer", "corpus.source: found nothing, expected text"),
        pytest.param("space", "space.options.head_size: found 3, expected 4", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_that_a_worker_finds_is_told_at_once(training, tmp_path, mistake, message):
    """It is no lost worker: nothing is tried again."""
    with pytest.raises(TrainingInputError) as raised:
        training.run(SluggishFactory(tmp_path / "log", mistake=mistake), max_failures=3)
    assert str(raised.value) == message
    assert len(steps_by_process(tmp_path / "log")) == 1


def test_a_training_may_end_early_with_rows_of_another_table(training, tmp_path):
    """Started again, it has nothing to do but to tell its rows."""
    checkpoint = training.run(SluggishFactory(tmp_path / "log", enough=sum(range(5))))
    assert float(load_file(checkpoint / WEIGHTS)["sum"]) == sum(range(5))
    assert steps_by_process(tmp_path / "log").popitem()[1] == [0, 1, 2, 3, 4]
    assert [row for row in training.rows if row.get("table") == "news"] == [{"table": "news", "sum": 10.0}]
    assert losses([row for row in training.rows if "table" not in row]) == {4: sum(range(4)), 5: sum(range(5))}
    assert training.notes[-1] == "added 4"
    assert training.progress[-1] == 5
    assert training.progress == sorted(training.progress)

    again = Training(training.cluster, training.storage)
    again.run(SluggishFactory(tmp_path / "log", enough=sum(range(5))))
    assert again.rows == training.rows, "a training that had ended early went on"
    assert len(steps_by_process(tmp_path / "log").popitem()[1]) == 5


def test_a_failure_is_one_line_and_its_checkpoint_survives_even_a_broken_record(training, tmp_path):
    with pytest.raises(TrainingError) as raised:
        training.run(SluggishFactory(tmp_path / "log", fails_at=5), max_failures=0)
    message = str(raised.value)
    assert message.startswith("the training training failed: ")
    assert "step 5 diverged" in message
    assert message.endswith("run the same command again to go on")
    assert "\n" not in message

    # Ray Train writes its record of checkpoints in place: a crash may leave half of it.
    (training.storage / "training" / "checkpoint_manager_snapshot.json").write_text('{"checkpoint_res')
    checkpoint = training.run(SluggishFactory(tmp_path / "log"))
    assert float(load_file(checkpoint / WEIGHTS)["sum"]) == sum(range(8))
    assert list(steps_by_process(tmp_path / "log").values())[-1] == [4, 5, 6, 7]
    assert losses(training.rows) == {4: sum(range(4)), 8: sum(range(8))}


@pytest.mark.slow
def test_rows_that_cannot_be_recorded_end_the_training(training, tmp_path):
    def refuse(rows: list[Row]) -> None:
        raise OSError("no space left on device")

    training.on_rows = refuse
    with pytest.raises(OSError, match="no space"):
        training.run(SluggishFactory(tmp_path / "log"))


def test_two_workers_learn_what_one_does(training, tmp_path):
    """Full sequences, so that the mean of both halves' means is the mean of the batch."""
    teacher_folder = save_teacher(tmp_path / "teacher")
    make_corpus(tmp_path / "corpus", make_documents(count=20, words=20))
    settings = make_settings(batch_size=8, paths_per_step=2, total_steps=4, learning_rate=1e-3)
    factory = BlockwiseFactory(teacher_folder, tmp_path / "corpus", "nas_bert", {**OPTIONS, "dropout": 0.0}, settings)
    training.run(factory, Intervals(checkpoint_every=4, report_every=1), workers=2)
    together, alone = (
        {(row["block"], row["step"]): row for row in rows}
        for rows in (training.rows, run_locally(factory(0, 1, torch.device("cpu")), report_every=1))
    )
    assert together.keys() == alone.keys()
    for key, expected in alone.items():
        assert together[key]["loss"] == pytest.approx(expected["loss"], rel=1e-4), key
        assert (together[key]["tokens"], together[key]["workers"]) == (expected["tokens"], 2)
        assert expected["workers"] == 1
