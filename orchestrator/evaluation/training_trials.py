"""Whole trainings as trials of Ray Tune: each on an actor of its own, several at once, with checkpoints and restarts.

For trainings that differ in a setting and do not need each other. A trial trains to its end in one process; Tune keeps
its checkpoints and starts it again from the newest where its actor dies. After a new start of the command, every trial
goes on from the newest checkpoint that any earlier experiment of the same name left, finished ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from ray import cloudpickle, tune

from cluster.environment import variables
from cluster.errors import type_and_text
from cluster.signals import while_ray_runs
from orchestrator.errors import RunError
from orchestrator.evaluation.actor_pool import places_for_actors
from orchestrator.evaluation.device import ready_device
from orchestrator.evaluation.steady_actors import TUNE_ENVIRONMENT, quiet_tune, trial_resources
from orchestrator.evaluation.tune_callbacks import DriverOnly
from spaces.errors import SpaceError
from trainers.errors import TrainingInputError
from trainers.ray_train import Intervals, Scaling
from trainers.task import Row, TaskFactory, TrainingTask, load_checkpoint, rows_after, save_checkpoint

OnTrialRows = Callable[[int, list[Row]], None]
"""Given a trial's number and new rows of its training."""
OnSteps = Callable[[int], None]
"""Given the steps that all trials together have done."""

_PROGRESS = "progress.json"
"""The file of a checkpoint that is written last."""
_KEPT_CHECKPOINTS = 2


def train_as_trials(
    factories: Sequence[TaskFactory],
    *,
    name: str,
    storage: Path,
    scaling: Scaling,
    intervals: Intervals,
    on_rows: OnTrialRows,
    on_steps: OnSteps,
) -> list[Path]:
    """Train every task to its end, going on where earlier starts under the same name were.

    Args:
        factories: make the tasks, one a trial, each for a single worker; they travel to the actors.
        name: of the experiment; has to change with anything that changes a result.
        storage: folder that all actors reach; everything of the experiment is in ``storage/name``.
        scaling: what one trial has; ``workers`` is how many are trained at the same time at most.
        intervals: checkpoints and rows.
        on_rows: gets a trial's number and its rows as they come; after a resume the earlier ones again.
        on_steps: gets the steps that all trials together have done.

    Returns:
        The folder of each trial's last checkpoint, in the order of ``factories``.

    Raises:
        TrainingInputError: a trial found the user's input wrong.
        UserError: the cluster is too small for one trial.
        RunError: a trial failed more often than ``max_failures`` allows, or the experiment was interrupted.
    """
    folder = storage.resolve() / name
    at_once = places_for_actors(min(scaling.workers, len(factories)), scaling.cpus_per_worker, scaling.gpus_per_worker)
    watch = _Watch(len(factories), on_rows, on_steps)
    trials = [_Trial(cloudpickle.dumps(factory), _newest(folder, number)) for number, factory in enumerate(factories)]
    resources = trial_resources(scaling.cpus_per_worker, scaling.gpus_per_worker)
    trainable = tune.with_parameters(
        _TrainingTrial, trials=trials, intervals=intervals, threads=max(1, int(scaling.cpus_per_worker))
    )
    frequency = max(1, intervals.checkpoint_every // intervals.report_every)
    with variables(TUNE_ENVIRONMENT), while_ray_runs(), quiet_tune():
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"number": tune.grid_search(list(range(len(factories))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
                reuse_actors=False,
                trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
                trial_dirname_creator=lambda trial: _trial_folder(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name=next(start for start in map(str, count(1)) if not (folder / start).exists()),
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=scaling.max_failures),
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=_KEPT_CHECKPOINTS, checkpoint_frequency=frequency, checkpoint_at_end=True
                ),
                stop=_Stop(watch),
                callbacks=[watch],
                verbose=0,
            ),
        )
        results = tuner.fit()
    if watch.error is not None:
        raise watch.error
    if watch.mistake is not None:
        raise TrainingInputError(watch.mistake)
    checkpoints = [_newest(folder, number) for number in range(len(factories))]
    if not watch.is_done or None in checkpoints:
        cause = _cause(results.errors[0]) if results.errors else "they were interrupted"
        raise RunError(f"the trainings {name} did not end: {cause}; run the same command again to go on")
    return [checkpoint for checkpoint in checkpoints if checkpoint is not None]


@dataclass(frozen=True)
class _Trial:
    """What a trial is made of.

    Attributes:
        factory: pickled, so that a failure to load it is caught where it is reported.
        start: the checkpoint it goes on from; ``None``: from the beginning.
    """

    factory: bytes
    start: Path | None


class _TrainingTrial(tune.Trainable):  # type: ignore[misc]
    """An actor that trains one task; an iteration goes to the next row."""

    def setup(self, config: dict[str, Any], trials: Sequence[_Trial], intervals: Intervals, threads: int) -> None:
        """Make the task, and go on from a checkpoint of an earlier start if there is one."""
        self._intervals = intervals
        self._steps_done = 0
        self._history: list[Row] = []
        self._unsent: list[Row] = []
        self._mistake: str | None = None
        self._task: TrainingTask | None = None
        chosen = trials[config["number"]]
        device = ready_device("cuda" if torch.cuda.is_available() else "cpu", threads)
        try:
            self._task = cloudpickle.loads(chosen.factory)(0, 1, device)
        except (TrainingInputError, SpaceError) as error:
            self._mistake = str(error)  # raised, it would be tried again
            return
        if chosen.start is not None:
            self.load_checkpoint(str(chosen.start))

    def step(self) -> dict[str, Any]:
        """Train until rows are due; the first iteration after a resume brings the earlier rows, too."""
        if self._task is None:
            return {"done": True, "mistake": self._mistake, "rows": [], "steps_done": 0}
        task, rows = self._task, self._unsent
        self._unsent = []
        while self._steps_done < task.total_steps and not task.finished:
            task.step(self._steps_done)
            self._steps_done += 1
            new = rows_after(task, self._steps_done, self._intervals.report_every)
            self._history += new
            rows += new
            if new:
                break
        done = task.finished or self._steps_done == task.total_steps
        return {"done": done, "mistake": None, "rows": rows, "steps_done": self._steps_done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the task's state."""
        if self._task is not None:
            save_checkpoint(self._task, Path(checkpoint_dir), self._steps_done, self._history)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Take the task's state over."""
        assert self._task is not None
        self._steps_done, self._history = load_checkpoint(self._task, Path(checkpoint))
        self._unsent = list(self._history)


class _Watch(DriverOnly, tune.Callback):  # type: ignore[misc]
    """Hands rows and steps to the driver's callbacks while Tune's own loop turns."""

    def __init__(self, trials: int, on_rows: OnTrialRows, on_steps: OnSteps) -> None:
        self._on_rows = on_rows
        self._on_steps = on_steps
        self._steps = [0] * trials
        self._done = [False] * trials
        self.error: Exception | None = None
        self.mistake: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether all trials have trained to their end."""
        return all(self._done)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial has come to its next row."""
        number = trial.config["number"]
        self.mistake = self.mistake or result["mistake"]
        self._steps[number] = result["steps_done"]
        self._done[number] = result["done"] and result["mistake"] is None
        try:
            if result["rows"]:
                self._on_rows(number, result["rows"])
            self._on_steps(sum(self._steps))
        except Exception as error:  # Tune would end without a word of it
            self.error = self.error or error


class _Stop(DriverOnly, tune.Stopper):  # type: ignore[misc]
    """Ends the experiment once nobody can use it any more."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Trials end by themselves."""
        return False

    def stop_all(self) -> bool:
        """Whether a row could not be recorded, or the input is wrong."""
        return self._watch.error is not None or self._watch.mistake is not None


def _cause(error: Exception) -> str:
    """What a trial failed by, in one line: the error that its actor raised, if there is one."""
    return type_and_text(getattr(error, "cause", None) or error)


def _trial_folder(number: int) -> str:
    return f"trial-{number}"


def _newest(folder: Path, number: int) -> Path | None:
    """The newest complete checkpoint of a trial, of whatever start."""
    complete = [file.parent for file in folder.glob(f"*/{_trial_folder(number)}/checkpoint_*/{_PROGRESS}")]
    return max(complete, key=lambda path: (int(path.parts[-3]), path.name), default=None)
