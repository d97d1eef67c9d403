"""Doing what is left of a comparison: on actors or here, with a row for every score as soon as a job is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.finetuning.plan import Comparison, JobKey, PlannedJob, planned_jobs
from orchestrator.results import ResultsWriter
from trainers.tasks.jobs import JobResult, TuningJob, TuningWorker

TASK_SCORES = "task_scores"
OnDone = Callable[[PlannedJob, JobResult, int, int], None]
"""Told the job, its result, and how many of how many are done."""


class Runner(Protocol):
    """Does independent items; ``run_on_actors`` and ``run_here`` of the actor pool are such."""

    def __call__(
        self,
        make_worker: Any,
        items: Sequence[Any],
        *,
        actors: int,
        cpus_per_actor: float,
        gpus_per_actor: float,
        on_result: Callable[[int, Any], None],
    ) -> None:
        """Do all items and hand each result over once."""


def jobs_to_do(jobs: Sequence[PlannedJob], rows: Iterable[Mapping[str, Any]]) -> list[PlannedJob]:
    """The jobs that have no rows yet, and those whose model is needed and gone.

    Args:
        jobs: each after those it needs.
        rows: of the table ``task_scores``.
    """
    finished = {(row["model"], row["task"], row["seed"], row["signature"]) for row in rows}
    by_key = {job.key: job for job in jobs}
    due: set[JobKey] = set()
    for job in reversed(jobs):
        if job.key in due or job.key not in finished or (job.lasts and not job.is_kept):
            due.add(job.key)
            due.update(key for key in job.needs if not by_key[key].is_kept)
    return [job for job in jobs if job.key in due]


def waves(jobs: Sequence[PlannedJob]) -> list[list[PlannedJob]]:
    """The jobs in groups: all that a job needs lies in earlier groups, so a group can be done in parallel."""
    level: dict[JobKey, int] = {}
    groups: list[list[PlannedJob]] = []
    for job in jobs:
        level[job.key] = max((level[key] + 1 for key in job.needs if key in level), default=0)
        while len(groups) <= level[job.key]:
            groups.append([])
        groups[level[job.key]].append(job)
    return groups


def run_comparison(
    comparison: Comparison,
    *,
    writer: ResultsWriter,
    rows: Iterable[Mapping[str, Any]],
    runner: Runner,
    actors: int = 1,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    threads: int | None = None,
    on_done: OnDone | None = None,
) -> int:
    """Do every job of a comparison that has not been done, and record its scores.

    Args:
        comparison: what is compared.
        writer: of the results.
        rows: of ``task_scores`` so far: what earlier starts have done.
        runner: does the jobs.
        actors: processes at the same time.
        cpus_per_actor: CPUs of each.
        gpus_per_actor: GPUs of each.
        threads: of each process; ``None`` leaves them as they are.
        on_done: told after each job.

    Returns:
        How many jobs were done.
    """
    jobs = planned_jobs(comparison)
    due = jobs_to_do(jobs, rows)
    total, done = len(jobs), len(jobs) - len(due)
    for group in waves(due):
        group.sort(key=lambda job: -job_size(job, comparison))
        items = [job.job for job in group]

        def record(number: int, result: JobResult, group: list[PlannedJob] = group) -> None:
            nonlocal done
            writer.extend(TASK_SCORES, score_rows(group[number], result, comparison))
            writer.flush()
            done += 1
            if on_done is not None:
                on_done(group[number], result, done, total)

        runner(
            TuningWorker(threads, accelerator=gpus_per_actor > 0),
            items,
            actors=actors,
            cpus_per_actor=cpus_per_actor,
            gpus_per_actor=gpus_per_actor,
            on_result=record,
        )
    return len(due)


def job_size(job: PlannedJob, comparison: Comparison) -> int:
    """Roughly how long a job takes, to begin with the longest; without reading data."""
    order = ("mnli", "squad_v2", "squad_v1", "qqp", "qnli", "sst2", "conll2000", "ewt")
    return len(order) - order.index(job.task.name) if job.task.name in order else 0


def score_rows(planned: PlannedJob, result: JobResult, comparison: Comparison) -> list[dict[str, Any]]:
    """The rows of ``task_scores`` that a job leaves."""
    teacher = comparison.teacher.label if planned.job.teacher and comparison.teacher else None
    return [
        {
            "model": planned.contestant.label,
            "role": planned.contestant.role,
            "budget": planned.contestant.budget or None,
            "task": planned.task.name,
            "split": score.split,
            "metric": score.metric,
            "value": score.value,
            "headline": score.headline,
            "seed": planned.seed,
            "examples": result.examples,
            "dev_examples": score.examples,
            "epochs": result.epochs,
            "training_loss": result.loss,
            "seconds": result.seconds,
            "teacher": teacher,
            "start": planned.start or None,
            "signature": planned.signature,
            "stage": comparison.stage or None,
        }
        for score in result.scores
    ]


def rows_of(comparison: Comparison, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those rows of ``task_scores`` that are this comparison's, with its present settings."""
    keys = {job.key for job in planned_jobs(comparison)}
    return [row for row in rows if (row["model"], row["task"], row["seed"], row["signature"]) in keys]


def remove_tuned_models(comparison: Comparison, keep: Collection[Path] = ()) -> None:
    """Free the disk of models that only served others.

    Args:
        comparison: whose models they are.
        keep: folders of models that serve somebody else, too.
    """
    if comparison.save_models:
        return
    for folder in comparison.work.glob("*/*/*"):  # model, task, seed
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in [*comparison.work.glob("*/*"), *comparison.work.glob("*"), comparison.work]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


__all__ = [
    "TASK_SCORES",
    "TuningJob",
    "jobs_to_do",
    "remove_tuned_models",
    "rows_of",
    "run_comparison",
    "score_rows",
    "waves",
]
