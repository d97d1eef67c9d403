"""One job: a model tuned on a task with a seed, and judged. Plain PyTorch, so that any process can do it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainers.task import run_locally
from trainers.tasks.catalogue import Task
from trainers.tasks.features import complete_task
from trainers.tasks.finetuning import FineTuningFactory, FineTuningSettings
from trainers.tasks.judging import judge, read_dev_sets
from trainers.tasks.models import TASK_KEY, has_head_for, load_config, load_for_task, load_tokenizer, save_for_task
from trainers.tasks.sources import TaskSource

_REPORT_EVERY = 20
_MARK = "tuning.txt"
Listener = Callable[[int, int, float], None]
"""Told the steps done, the steps in all, and the mean loss since the last call."""


@dataclass(frozen=True)
class TuningJob:
    """What is to be done.

    Attributes:
        model: folder or hub id of the encoder, or of a tuned model to start from.
        task: which.
        source: where its data is.
        settings: how to tune.
        seed: of head, dropout and order.
        teacher: folder of a model tuned on the task; ``None`` for none.
        save_to: folder for the tuned model; ``None``: it is not kept.
        train: false only judges a model that comes with a head for the task.
        mark: lies beside the saved model and tells it from those of other settings (:func:`mark_of`).
    """

    model: str
    task: Task
    source: TaskSource
    settings: FineTuningSettings
    seed: int
    teacher: str | None = None
    save_to: Path | None = None
    train: bool = True
    mark: str = ""


@dataclass(frozen=True)
class Score:
    """One measured value.

    Attributes:
        split: judged on.
        metric: name.
        value: a share, or a correlation.
        headline: whether it stands for the task in an average.
        examples: rows of the split that were judged.
    """

    split: str
    metric: str
    value: float
    headline: bool
    examples: int


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Attributes:
        scores: on all dev splits.
        examples: training rows (windows, for question answering); 0 where nothing was trained.
        epochs: the epoch whose weights were judged; 0 where nothing was trained.
        loss: mean training loss of the last interval; ``None`` where nothing was trained.
        seconds: for everything, reading and judging included.
    """

    scores: tuple[Score, ...]
    examples: int
    epochs: int
    loss: float | None
    seconds: float


def run_job(job: TuningJob, device: torch.device | None = None, listener: Listener | None = None) -> JobResult:
    """Tune and judge.

    Args:
        job: what to do.
        device: where; the CPU by default.
        listener: hears how far the training is.

    Raises:
        TrainingInputError: model or data are not what the task needs.
    """
    started = time.perf_counter()
    if not job.train:
        return JobResult(_judge_as_it_is(job, device), 0, 0, None, time.perf_counter() - started)
    factory = FineTuningFactory(job.model, job.task, job.source, job.settings, job.seed, job.teacher)
    tuning = factory(device=device)

    def tell(steps_done: int, rows: list[dict[str, float]]) -> None:
        if listener is not None:
            listener(steps_done, tuning.total_steps, rows[-1]["loss"])

    rows = run_locally(tuning, _REPORT_EVERY, tell)
    epoch = tuning.finish()
    scores: list[Score] = []
    for dev_set in tuning.dev_sets:
        found = tuning.judge(dev_set)
        scores += _scores(tuning.task, dev_set.split.name, found, dev_set.examples, first=dev_set is tuning.dev_sets[0])
    if job.save_to is not None:
        _save(tuning.model, tuning.tokenizer, job.save_to, job.mark)
    return JobResult(tuple(scores), len(tuning.training), epoch, rows[-1]["loss"], time.perf_counter() - started)


def _judge_as_it_is(job: TuningJob, device: torch.device | None) -> tuple[Score, ...]:
    task = complete_task(job.task, job.source)
    tokenizer = load_tokenizer(job.model)
    model = load_for_task(job.model, task, keep_head=True)
    model.to(device or torch.device("cpu"))  # type: ignore[arg-type]
    lengths = job.settings.lengths_for(model.config, tokenizer)
    scores: list[Score] = []
    for number, dev_set in enumerate(
        read_dev_sets(task, job.source, tokenizer, lengths, job.settings.max_eval_examples)
    ):
        found = judge(model, task, dev_set, tokenizer, lengths, job.settings.precision)
        scores += _scores(task, dev_set.split.name, found, dev_set.examples, first=number == 0)
    return tuple(scores)


def _scores(task: Task, split: str, found: dict[str, float], examples: int, first: bool) -> list[Score]:
    return [Score(split, name, value, first and name == task.headline, examples) for name, value in found.items()]


def _save(model: object, tokenizer: object, folder: Path, mark: str) -> None:
    """Write a tuned model whole or not at all."""
    unfinished = folder.with_name(f"{folder.name}-unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_for_task(model, tokenizer, unfinished)  # type: ignore[arg-type]
    (unfinished / _MARK).write_text(mark, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def mark_of(folder: Path) -> str | None:
    """The mark of the job that saved a model; ``None`` where no job has."""
    file = folder / _MARK
    return file.read_text(encoding="utf-8") if file.is_file() else None


def was_tuned_for(model: str, task: Task) -> bool:
    """Whether a model says of itself that its head was trained for the task; reads its configuration only.

    A head that knows unanswerable questions by a span serves as well as one with a layer for them.
    """
    config = load_config(model)
    if task.kind == "tagging" and not task.labels:
        return getattr(config, TASK_KEY, None) == task.name
    return getattr(config, TASK_KEY, None) == task.name and has_head_for(config, task)


@dataclass(frozen=True)
class TuningWorker:
    """Makes what does jobs in a process of its own; picklable.

    Attributes:
        threads: processor threads; ``None`` leaves them as they are.
        accelerator: whether to compute on an accelerator, if the process sees one.
    """

    threads: int | None = None
    accelerator: bool = False

    def __call__(self) -> Callable[[TuningJob], JobResult]:
        """Set the process up."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = torch.device("cuda" if self.accelerator and torch.cuda.is_available() else "cpu")
        return lambda job: run_job(job, device)
