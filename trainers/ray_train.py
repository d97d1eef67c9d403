"""The adapter to Ray Train: runs a training task on one or many workers, with checkpoints and restarts.

Everything of training that knows Ray is in this module. Ray Train places the workers, joins them to a process group,
keeps the checkpoints and restarts the group when a worker dies. Rows and progress travel to the driver through a small
actor, so that only the driver writes results.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.v2.api.exceptions import TrainingFailedError

from cluster.connect import ClusterInfo
from cluster.errors import one_line
from cluster.process_group import torch_config
from cluster.signals import while_ray_runs
from spaces.errors import SpaceError
from trainers.errors import TrainingError, TrainingInputError
from trainers.task import Row, TaskFactory, TrainingTask, load_checkpoint, no_listener, rows_after, save_checkpoint

OnRows = Callable[[list[Row]], None]
OnProgress = Callable[[int], None]
OnNote = Callable[[str], None]

_POLL_SECONDS = 0.3
_KEPT_CHECKPOINTS = 2
_SNAPSHOT = "checkpoint_manager_snapshot.json"


@dataclass(frozen=True)
class Scaling:
    """How many workers train, and what each has.

    Attributes:
        workers: training processes; more than one train data-parallel.
        cpus_per_worker: CPUs Ray reserves for each, and threads it computes with.
        gpus_per_worker: GPUs Ray reserves for each.
        max_failures: how often the group is restarted after a worker died.
    """

    workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    max_failures: int = 3


@dataclass(frozen=True)
class Intervals:
    """How often a training reports.

    Attributes:
        checkpoint_every: optimiser steps between checkpoints.
        report_every: optimiser steps between rows.
    """

    checkpoint_every: int
    report_every: int


def train_on_ray(
    factory: TaskFactory,
    *,
    name: str,
    storage: Path,
    scaling: Scaling,
    intervals: Intervals,
    cluster: ClusterInfo,
    on_rows: OnRows,
    on_progress: OnProgress,
    on_note: OnNote = no_listener,
) -> Path:
    """Train to the end, going on from the newest checkpoint under the same name and storage if there is one.

    Args:
        factory: makes each worker's task; travels to the workers.
        name: of the training; has to change with anything that changes its result.
        storage: folder that all workers reach; checkpoints go to ``storage/name``.
        scaling: workers.
        intervals: checkpoints and rows.
        cluster: the Ray this process is connected to.
        on_rows: gets the rows of the results tables as they come; after a resume the earlier ones again.
        on_progress: gets the number of steps done.
        on_note: gets what a long step is busy with, in a few words.

    Returns:
        The folder of the last checkpoint.

    Raises:
        TrainingInputError: a worker found the user's input wrong.
        TrainingError: the training failed more often than ``max_failures`` allows.
    """
    storage = storage.resolve()
    fallback = _set_damaged_snapshot_aside(storage / name)
    unsent = storage / f"{name}-unsent"
    shutil.rmtree(unsent, ignore_errors=True)  # what a killed worker left
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={
            "factory": factory,
            "intervals": intervals,
            "threads": max(1, int(scaling.cpus_per_worker)),
            "mailbox": mailbox,
            "fallback": fallback,
            "unsent": unsent,
        },
        torch_config=torch_config(cluster),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker=_resources(scaling),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=_KEPT_CHECKPOINTS),
        ),
    )
    try:
        with _delivery(mailbox, on_rows, on_progress, on_note), while_ray_runs():
            result = trainer.fit()
        mistake = ray.get(mailbox.mistake.remote())
        if mistake is not None:
            raise TrainingInputError(mistake)
    except TrainingFailedError as error:
        raise _plain_error(name, error) from error
    finally:
        ray.kill(mailbox)
        shutil.rmtree(unsent, ignore_errors=True)
    checkpoint = Path(result.checkpoint.path) if result.checkpoint is not None else fallback
    if checkpoint is None:
        raise TrainingError(f"the training {name} ended without a checkpoint in {storage}; run the same command again")
    return checkpoint


def _resources(scaling: Scaling) -> dict[str, float]:
    resources = {"CPU": float(scaling.cpus_per_worker)}
    if scaling.gpus_per_worker:
        resources["GPU"] = float(scaling.gpus_per_worker)
    return resources


def _plain_error(name: str, error: TrainingFailedError) -> Exception:
    causes = [*getattr(error, "worker_failures", {}).values(), error.__cause__, error]
    for cause in causes:
        inner: BaseException | None = cause
        while inner is not None:
            if isinstance(inner, (TrainingInputError, SpaceError)):
                return TrainingInputError(str(inner))
            inner = getattr(inner, "cause", None) or inner.__cause__
    first = next(cause for cause in causes if cause is not None)
    return TrainingError(f"the training {name} failed: {one_line(first)}; run the same command again to go on")


def _set_damaged_snapshot_aside(folder: Path) -> Path | None:
    """Protect a resume from a record of checkpoints that a crash left half written.

    Ray Train writes that record in place and refuses to go on from a broken one. If it cannot be read, or names
    checkpoints that are gone, the folder is renamed and the newest complete checkpoint in it is returned.
    """
    snapshot = folder / _SNAPSHOT
    if not snapshot.exists():
        return None
    try:
        recorded = json.loads(snapshot.read_text(encoding="utf-8"))["checkpoint_results"]
        names = [Path(entry["checkpoint_dir_name"]).name for entry in recorded]
    except (ValueError, KeyError, TypeError):
        names = None
    if names is not None and all((folder / name / "progress.json").is_file() for name in names):
        return None
    aside = folder.with_name(f"{folder.name}-damaged-{time.time_ns()}")
    folder.rename(aside)
    complete = sorted((path.parent for path in aside.glob("*/progress.json")), key=lambda path: path.name)
    return complete[-1] if complete else None


def _work(config: Mapping[str, Any]) -> None:
    """One worker's training loop."""
    context = ray.train.get_context()
    rank = context.get_world_rank()
    torch.set_num_threads(config["threads"])
    task = _make_task(config, rank, context.get_world_size())
    if task is None:
        return
    intervals: Intervals = config["intervals"]
    steps_done = 0
    history: list[Row] = []
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            steps_done, history = load_checkpoint(task, Path(folder))
    elif config["fallback"] is not None:
        steps_done, history = load_checkpoint(task, config["fallback"])
    mailbox = config["mailbox"]
    if rank == 0:
        mailbox.put.remote(steps_done, history)
        task.tell = mailbox.note.remote
    while steps_done < task.total_steps and not task.finished:
        task.step(steps_done)
        steps_done += 1
        rows = rows_after(task, steps_done, intervals.report_every)
        history = [*history, *rows]
        if rank == 0:
            mailbox.put.remote(steps_done, rows)
        is_last = task.finished or steps_done == task.total_steps
        if is_last or steps_done % intervals.checkpoint_every == 0:
            _report_checkpoint(task, rank, steps_done, history, config["unsent"])


def _make_task(config: Mapping[str, Any], rank: int, world_size: int) -> TrainingTask | None:
    """This worker's task; ``None``, on every worker, if one of them found a mistake of the user's.

    Such a mistake ends the work in good order: raised, it would count as a lost worker, and all would be tried again.
    """
    device = ray.train.torch.get_device()
    task: TrainingTask | None = None
    try:
        task = config["factory"](rank, world_size, device)
    except (TrainingInputError, SpaceError) as error:
        ray.get(config["mailbox"].refuse.remote(str(error)))
    refused = torch.tensor([float(task is None)], device=device)
    if world_size > 1:
        dist.all_reduce(refused)
    return None if refused.item() else task


def _report_checkpoint(task: Any, rank: int, steps_done: int, history: list[Row], unsent: Path) -> None:
    if rank != 0:
        ray.train.report({"steps_done": steps_done})
        return
    unsent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=unsent))
    try:
        save_checkpoint(task, folder, steps_done, history)
        ray.train.report({"steps_done": steps_done}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Mailbox:
    """Rows and progress on their way from worker 0 to the driver."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._steps_done = 0
        self._note: str | None = None
        self._mistake: str | None = None

    def put(self, steps_done: int, rows: list[Row]) -> None:
        """Leave rows and the number of steps done."""
        self._steps_done = steps_done
        self._rows.extend(rows)

    def note(self, text: str) -> None:
        """Leave what the step under way is busy with; only the newest counts."""
        self._note = text

    def refuse(self, mistake: str) -> None:
        """Leave a mistake of the user's that a worker found."""
        self._mistake = mistake

    def mistake(self) -> str | None:
        """The mistake that a worker found, if any."""
        return self._mistake

    def take(self) -> tuple[int, list[Row], str | None]:
        """Fetch what has come since the last call."""
        rows, self._rows = self._rows, []
        note, self._note = self._note, None
        return self._steps_done, rows, note


class _delivery:  # noqa: N801 - used like a function, as a context manager
    """Hands what arrives in the mailbox to the driver's callbacks, from a thread of its own."""

    def __init__(self, mailbox: Any, on_rows: OnRows, on_progress: OnProgress, on_note: OnNote) -> None:
        self._mailbox = mailbox
        self._on_rows = on_rows
        self._on_progress = on_progress
        self._on_note = on_note
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="netsuke-training-rows", daemon=True)

    def __enter__(self) -> _delivery:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self._deliver()
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self._deliver()
            except Exception as error:  # the training goes on; the error is raised when it ends
                self._error = error
                return

    def _deliver(self) -> None:
        steps_done, rows, note = ray.get(self._mailbox.take.remote())
        if rows:
            self._on_rows(rows)
        self._on_progress(steps_done)
        if note is not None:
            self._on_note(note)
