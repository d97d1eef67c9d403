"""Runs whose trainings and searches take place in this process, where Ray's processes are not what a test is about.

Both are done by the twins that the product has of its adapters to Ray, which come to the same. Starting Ray's processes
takes ten times as long as microscopic models take to train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from cluster.connect import ClusterInfo
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.records import SearchProgress
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.stages import training
from trainers.ray_train import Intervals, OnNote, OnProgress, OnRows, Scaling
from trainers.task import TaskFactory, run_locally, save_checkpoint


@contextmanager
def trainings_here() -> Iterator[None]:
    """Trainings begin anew and run to their end in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_on_ray", _train)
        yield


@contextmanager
def without_ray() -> Iterator[None]:
    """Trainings and searches run in this process."""
    with trainings_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuneEvaluation, "run", _search)
        yield


def _train(
    factory: TaskFactory,
    *,
    name: str,
    storage: Path,
    scaling: Scaling,
    intervals: Intervals,
    cluster: ClusterInfo,
    on_rows: OnRows,
    on_progress: OnProgress,
    on_note: OnNote,
) -> Path:
    assert scaling.workers == 1
    task = _travelled(factory)(0, 1, torch.device("cpu"))
    task.tell = on_note
    history = run_locally(task, intervals.report_every, lambda steps_done, rows: on_rows(rows))
    on_progress(history[-1]["step"])
    checkpoint = storage / name / "checkpoint"
    checkpoint.mkdir(parents=True)
    save_checkpoint(task, checkpoint, history[-1]["step"], history)
    return checkpoint


def _search(
    evaluation: TuneEvaluation,
    loop: SearchLoop,
    progress: Callable[[SearchProgress], None] | None = None,
    *experiment: Any,
) -> None:
    evaluate_locally(loop, _travelled(evaluation.evaluator_factory), meter=evaluation.meter, progress=progress)


def _travelled(factory: Any) -> Any:
    """What arrives in another process."""
    return cloudpickle.loads(cloudpickle.dumps(factory))
