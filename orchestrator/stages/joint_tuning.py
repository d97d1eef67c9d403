"""The stage that tunes a phase's supernet on several tasks at once, so that one of them can score candidates.

It begins where the phase's own supernet, trained on text, has ended, and leaves that as it is: what is changed here
trains nothing there again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from cluster.resources import ResourceRequest
from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.finetuning.estimate import count_training_rows, typical_tokens
from orchestrator.formatting import plural
from orchestrator.phases import Phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.phases import TaskTuningSettings
from orchestrator.recipe.sources import TUNED
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.task_teachers import TASK_TEACHERS, check_imitated, tuned_teacher
from orchestrator.stages.training import (
    estimated_seconds,
    optimiser_settings,
    remove_checkpoints,
    resources,
    teacher_flops,
    train,
)
from orchestrator.stages.tuning import lasting_settings, task_source, tuning_settings, unchecked_data
from orchestrator.stages.warm_up import SUPERNET_SHARE
from trainers.errors import TrainingInputError
from trainers.task import WEIGHTS
from trainers.tasks.catalogue import Task, find_task
from trainers.tasks.joint_tuning import JointTuningFactory, JointTuningSettings, tuned_parts
from trainers.tasks.slices import TrainSlices

_JUDGING_ONLY = ("judged_by", "held_out_share")
"""Keys that decide how candidates are scored, and nothing of the training."""


def joint_tuning_settings(recipe: Recipe, section: TaskTuningSettings) -> JointTuningSettings:
    """The trainers' view of the section, and of what the section ``finetuning`` says of texts, teachers and heads."""
    return JointTuningSettings(
        batch_size=section.batch_size,
        seed=recipe.seed,
        precision=section.precision,
        optimiser=optimiser_settings(section),
        tuning=lasting_settings(recipe.finetuning),
        pooler=section.pooler,
    )


def slices_of(section: TaskTuningSettings) -> TrainSlices:
    """The rows of training splits that are trained on, and those that candidates are scored on."""
    return TrainSlices(section.training_share, section.held_out_share)


def judging_task(section: TaskTuningSettings) -> Task:
    """The task whose held-out rows candidates are scored on."""
    return find_task(section.judge)


class JointTuningStage(Stage):
    """Tunes the supernet of a phase on tasks.

    Args:
        phase: of the search.
        section: what it says of the tuning.
    """

    resumable = True

    def __init__(self, phase: Phase, section: TaskTuningSettings) -> None:
        self.phase, self.section = phase, section
        self.name = phase.tuning_stage

    @property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(map(find_task, self.section.tasks))

    @property
    def _key(self) -> str:
        return f"{self.phase.key}.supernet.tuning"

    @property
    def _tunes_teachers(self) -> bool:
        return self.section.teachers == TUNED

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """The supernet that it begins with, the search whose winner narrows the space, and tuned teachers."""
        teachers = (TASK_TEACHERS,) if self._tunes_teachers else ()
        return ("teacher", self.phase.supernet_stage, *teachers, *self.phase.builds_on)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The section, the part of ``finetuning`` that it borrows, the tasks' data, the space and the seed."""
        recipe, fields = plan.recipe, type(self.section).model_fields
        trained = self.section.model_copy(update={key: fields[key].default for key in _JUDGING_ONLY})
        borrowed = asdict(joint_tuning_settings(recipe, self.section).tuning)
        source = task_source(recipe.finetuning)
        data = [source.fingerprint(task) for task in self._tasks]
        return [recipe.space, trained, borrowed, data, list(self.phase.keep), recipe.seed]

    def check(self, plan: RunPlan) -> None:
        """The tasks' data is there, and the section ``finetuning`` says what a tuning on several tasks can do."""
        settings = joint_tuning_settings(plan.recipe, self.section)
        try:
            _ = settings.pooling
        except TrainingInputError as error:
            raise UserError(f"{error} ({self._key})") from error
        if self._tunes_teachers:
            check_imitated(plan.recipe, f"{self._key}.teachers", "or null here")
        for task in self._tasks:
            task_source(plan.recipe.finetuning).check(task)

    def unchecked(self, plan: RunPlan) -> Sequence[str]:
        """Tasks whose data is on the hub."""
        return unchecked_data(self.name, plan.recipe.finetuning, self._tasks)

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the workers need of the cluster."""
        return resources(self._key, self.section)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Steps are exact; tokens and time are estimates, by what is known of such tasks."""
        section, shape = self.section, plan.shape
        settings, source = tuning_settings(plan.recipe.finetuning), task_source(plan.recipe.finetuning)
        rows = [math.floor(section.training_share * count_training_rows(task, source)) for task in self._tasks]
        rows = [min(count, settings.max_train_examples or count) for count in rows]
        tokens = [typical_tokens(task, settings) for task in self._tasks]
        typical = sum(map(lambda count, length: count * length, rows, tokens)) // max(1, sum(rows)) or max(tokens)
        flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, typical)
        passes = section.steps / max(1, sum(-(-count // section.batch_size) for count in rows))
        beside = ", beside a teacher that was tuned on it," if self._tunes_teachers else ""
        together = " together, one task and" if len(section.tasks) > 1 else ","
        return PlannedStage(
            self.name,
            "run",
            f"tune the supernet on {', '.join(section.tasks)}{together} a drawn network each step{beside} "
            f"on {plural(section.scaling.workers, 'worker')}: about {sum(rows):,} rows, each {passes:.2g} times",
            steps=section.steps,
            tokens=section.steps * section.batch_size * typical,
            seconds=estimated_seconds(section, flops * (SUPERNET_SHARE + self._tunes_teachers)),
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Tune, or go on tuning, and keep the weights of supernet and heads."""
        recipe, folder, section, phase = context.recipe, context.folder, self.section, self.phase
        teachers = {}
        if self._tunes_teachers:
            teachers = {task.name: str(tuned_teacher(recipe, folder, task)) for task in self._tasks}
        factory = JointTuningFactory(
            teacher_folder=folder.teacher,
            weights=phase.supernet_weights(folder),
            space_name=recipe.space.name,
            space_options=recipe.space.options,
            tasks=self._tasks,
            source=task_source(recipe.finetuning),
            settings=joint_tuning_settings(recipe, section),
            slices=slices_of(section),
            teachers=teachers,
            narrowing=phase.narrowing(context.outputs),
        )
        checkpoint = train(context, self.name, section, factory, progress, self.name)
        for part, file in zip(tuned_parts(load_file(checkpoint / WEIGHTS)), self._files(context.plan), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda partial, part=part: save_file(part, partial))  # type: ignore[misc]
        return StageResult(f"{progress.done} steps on {', '.join(section.tasks)}", {"steps": progress.done})

    def _files(self, plan: RunPlan) -> tuple[Path, Path]:
        folder, phase = plan.folder, self.phase.name
        return folder.tuned_supernet(phase), folder.tuned_heads(phase)

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the weights of supernet and heads are there."""
        return all(file.is_file() for file in self._files(plan))
