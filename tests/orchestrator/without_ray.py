"""Trainings, tables and searches of runs in this process, where Ray's processes are not what a test is about.

The twins that the product has of its adapters to Ray do it, which come to the same. Starting Ray's processes
takes ten times as long as microscopic models take to train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from cluster.connect import ClusterInfo
from orchestrator import scoring
from orchestrator.evaluation import training_trials
from orchestrator.evaluation.actor_pool import MakeWorker, run_here
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.records import SearchProgress
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.training_trials import OnSteps, OnTrialRows
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.stages import block_losses, training, tuning
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
    """Everything that Ray's processes would do happens in this one."""
    with trainings_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuneEvaluation, "run", _search)
        for module in (block_losses, scoring):
            patch.setattr(module, "on_actors", lambda *resources: _do_items)
        patch.setattr(tuning, "run_on_actors", _do_items)
        patch.setattr(training_trials, "train_as_trials", _train_trials)
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
    steps_done = max(row["step"] for row in history)
    on_progress(steps_done)
    checkpoint = storage / name / "checkpoint"
    checkpoint.mkdir(parents=True)
    save_checkpoint(task, checkpoint, steps_done, history)
    return checkpoint


def _train_trials(
    factories: Sequence[TaskFactory],
    *,
    name: str,
    storage: Path,
    scaling: Scaling,
    intervals: Intervals,
    on_rows: OnTrialRows,
    on_steps: OnSteps,
) -> list[Path]:
    checkpoints = []
    for number, factory in enumerate(factories):
        task = _travelled(factory)(0, 1, torch.device("cpu"))
        told = partial(on_rows, number)
        history = run_locally(task, intervals.report_every, lambda steps_done, rows, told=told: told(rows))
        checkpoints.append(storage / name / str(number))
        save_checkpoint(task, checkpoints[-1], task.total_steps, history)
        on_steps((number + 1) * task.total_steps)
    return checkpoints


def _search(
    evaluation: TuneEvaluation,
    loop: SearchLoop,
    progress: Callable[[SearchProgress], None] | None = None,
    *experiment: Any,
) -> None:
    evaluate_locally(loop, _travelled(evaluation.evaluator_factory), meter=evaluation.meter, progress=progress)


def _do_items(
    make_worker: MakeWorker[Any, Any], items: Sequence[Any], *, on_result: Callable[[int, Any], None], **resources: Any
) -> None:
    run_here(_travelled(make_worker), items, on_result=on_result)


def _travelled(factory: Any) -> Any:
    """What arrives in another process."""
    return cloudpickle.loads(cloudpickle.dumps(factory))
