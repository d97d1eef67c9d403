"""The recipe's section ``phases``: a search in steps, each in the part of the space that the one before left."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.recipe.finetuning import TaskName, kind_problem
from orchestrator.recipe.search import StrategySettings
from orchestrator.recipe.section import (
    BatchSize,
    Count,
    CountOrNone,
    GradientClip,
    Label,
    Later,
    LayerPadding,
    LayerScale,
    LearningRate,
    Precision,
    Problem,
    Section,
    TrainingSettings,
    WeightDecay,
    raise_problems,
    repeated,
)
from orchestrator.recipe.sources import TUNED
from orchestrator.recipe.supernet import Architectures


class TaskTuningSettings(TrainingSettings):
    """Tuning the phase's supernet on tasks, by which candidates are then scored without any training.

    Each step takes a batch of one task, in proportion to their numbers of batches, and a network that the phase's space
    draws. Texts are read, and teachers imitated, as the section `finetuning` says.
    """

    tasks: tuple[TaskName, ...] = Field(
        strict=False,
        min_length=1,
        description="classifications and regressions that are learnt together, their data being where finetuning.data "
        "says",
    )
    judged_by: TaskName | None = Field(
        None, description="the one of them whose held-out rows candidates are scored on; null: the first"
    )
    steps: Count = Field(1000, description="optimiser steps, all tasks together")
    batch_size: BatchSize = Field(64, description="examples a step, all workers together")
    learning_rate: LearningRate = Field(4e-4, description="peak learning rate")
    training_share: float = Field(
        0.9, gt=0, lt=1, description="share of each task's training rows, from the first on, that are trained on"
    )
    held_out_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training rows, up to the last, that candidates are scored on"
    )
    teachers: Literal["tuned"] | None = Field(
        TUNED,
        description="tuned: the run tunes its own teacher on each task first, as the section finetuning says and with "
        "its first seed, and networks imitate it as that section says; null: they learn the labels alone",
    )
    pooler: Literal["shared", "none"] = Field(
        "shared",
        description="what is between a text's state and the tasks' classifiers: one linear map and tanh for all tasks, "
        "or nothing",
    )

    @model_validator(mode="after")
    def _check_tasks(self) -> TaskTuningSettings:
        problems = repeated("tasks.{}", self.tasks)
        problems += [
            (f"tasks.{place}", found) for place, name in enumerate(self.tasks) if (found := kind_problem(name))
        ]
        if self.judged_by is not None and self.judged_by not in self.tasks:
            problems.append(("judged_by", f"found {self.judged_by}, expected one of tasks: {', '.join(self.tasks)}"))
        problems += _overlap(self.training_share, self.held_out_share)
        raise_problems(problems)
        return self

    @property
    def judge(self) -> str:
        """The task whose held-out rows candidates are scored on."""
        return self.tasks[0] if self.judged_by is None else self.judged_by


def _overlap(training_share: float, held_out_share: float) -> list[Problem]:
    if training_share + held_out_share <= 1:
        return []
    found = f"found {held_out_share}, expected at most 1 - training_share, so that none is learnt there"
    return [("held_out_share", found)]


class PhaseSupernetSettings(TrainingSettings):
    """A supernet of the phase's own: the main one, trained on in the phase's part of the space."""

    architectures: Architectures = Field(
        "sampled", description="whose turn a step is: a network that the phase's space draws, or always the plain one"
    )
    layer_padding: LayerPadding = Field(
        "counted", description="what padding counts for in the comparison of layers, as in supernet.layer_padding"
    )
    layer_scale: Annotated[LayerScale, Later()] = Field(
        "raw", description="what its errors are measured in, as in supernet.layer_scale"
    )
    tuning: Annotated[TaskTuningSettings | None, Later()] = Field(
        None,
        description="tuning on tasks behind that, after which a task scores candidates; null: there is none, and "
        "held-out text scores them",
    )


class CandidateTuningSettings(Section):
    """How long candidates are tuned on the task; everything else about it is as in the section `finetuning`."""

    epochs: Count = Field(3, description="passes over the rows that are trained on, at full fidelity")
    batch_size: BatchSize = Field(64, description="examples a step")
    learning_rate: LearningRate = Field(4e-4, description="peak learning rate")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")


class CandidateTrainingSettings(Section):
    """How each candidate is trained before it is judged, where a phase scores by training; the defaults are short."""

    steps: CountOrNone = Field(
        20, description="optimiser steps of the distillation on text, layer by layer, at full fidelity; 0: none"
    )
    batch_size: BatchSize = Field(32, description="sequences a step")
    learning_rate: LearningRate = Field(1e-4, description="peak learning rate")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: WeightDecay = Field(0.01, description="decoupled weight decay")
    gradient_clip: GradientClip | None = Field(1.0, description="largest norm of the gradient; null: no clipping")
    precision: Precision = Field("auto", description="number format; auto: bfloat16 where the hardware computes in it")
    layer_padding: LayerPadding = Field(
        "counted", description="what padding counts for in the comparison of layers, as in supernet.layer_padding"
    )
    layer_scale: Annotated[LayerScale, Later()] = Field(
        "raw", description="what its errors are measured in, as in supernet.layer_scale"
    )
    start: Literal["inherited", "scratch"] = Field(
        "inherited", description="where candidates start: at the supernet's weights, or at random ones, to compare with"
    )
    fidelities: int = Field(
        1,
        ge=1,
        le=1_000,
        description="steps between no training and all of it that strategies such as successive_halving may ask for; "
        "a candidate at the first of 9 is trained for a ninth of the steps. 1: all are trained to the end",
    )
    company: int = Field(
        4,
        ge=1,
        le=1_000,
        description="candidates that an actor distils together at most, which shares the teacher's passes and changes "
        "no result",
    )
    task: TaskName | None = Field(
        None,
        description="a classification or regression that candidates are tuned and judged on, its data being where "
        "finetuning.data says; null: they are judged by the error of their last state on held-out text",
    )
    task_teacher: str | None = Field(
        None,
        min_length=1,
        description="folder or hub id of a teacher that was tuned on the task, which candidates imitate as the section "
        "finetuning says; tuned: the run tunes its own teacher first, as that section says and with its first seed; "
        "null: they learn the labels alone",
    )
    training_share: float = Field(
        0.1, gt=0, lt=1, description="share of the task's training rows, from the first on, that are trained on"
    )
    held_out_share: float = Field(
        0.01, gt=0, lt=1, description="share of the task's training rows, up to the last, that candidates are judged on"
    )
    tuning: CandidateTuningSettings = Field(
        default_factory=CandidateTuningSettings, description="how long candidates are tuned on the task"
    )

    @model_validator(mode="after")
    def _check_work(self) -> CandidateTrainingSettings:
        problems = []
        if self.task is None:
            if not self.steps:
                problems.append(("steps", "found 0 without a task, expected some steps, or a task to be tuned on"))
            if self.task_teacher is not None:
                problems.append(("task_teacher", f"found {self.task_teacher!r} without a task; name one, or leave it"))
        problems += _overlap(self.training_share, self.held_out_share)
        raise_problems(problems)
        return self

    @property
    def tunes_teacher(self) -> bool:
        """Whether the run itself tunes the teacher of the task."""
        return self.task_teacher == TUNED


class PhaseSettings(Section):
    """One phase of the search; its winner, the best candidate within a budget, is what the next one builds on."""

    name: Label = Field(description="of its stages `search.<name>` and `supernet.<name>`")
    keep: tuple[str, ...] = Field(
        (),
        strict=False,
        description="aspects of the winner of the phase before that stay as they are (efficient_bert: expressions, "
        "sizes); all others are searched. None: the whole space",
    )
    score: Literal["supernet", "training"] = Field(
        "supernet",
        description="what candidates are scored by: the supernet's weights as they are, or a short training of each",
    )
    strategies: tuple[StrategySettings, ...] | None = Field(
        None, strict=False, min_length=1, description="as search.strategies; null: those"
    )
    stop: Count | None = Field(
        None, description="evaluations without a lower loss after which a strategy ends; null: as search.stop"
    )
    supernet: PhaseSupernetSettings | None = Field(
        None, description="a training of the supernet for this phase alone; null: the main supernet serves"
    )
    training: CandidateTrainingSettings | None = Field(
        None, description="how candidates are trained where score is training; null: the defaults"
    )

    @model_validator(mode="after")
    def _check_parts(self) -> PhaseSettings:
        problems = repeated("keep.{}", self.keep)
        problems += repeated("strategies.{}.name", (strategy.name for strategy in self.strategies or ()))
        if self.training is not None and self.score != "training":
            problems.append(("training", "found a section, expected null where score is supernet; or score: training"))
        if self.task_tuning is not None and self.score != "supernet":
            found = "found a section, expected null where score is training, which tunes every candidate by itself"
            problems.append(("supernet.tuning", f"{found}; or score: supernet"))
        raise_problems(problems)
        return self

    @property
    def candidate_training(self) -> CandidateTrainingSettings | None:
        """How candidates are trained; ``None`` where they are not."""
        return (self.training or CandidateTrainingSettings()) if self.score == "training" else None

    @property
    def task_tuning(self) -> TaskTuningSettings | None:
        """How the phase's supernet is tuned on tasks; ``None`` where it is not."""
        return None if self.supernet is None else self.supernet.tuning

    @property
    def taught_tasks(self) -> tuple[str, ...]:
        """The tasks for which the phase wants the run to tune its teacher."""
        if self.task_tuning is not None:
            return self.task_tuning.tasks if self.task_tuning.teachers == TUNED else ()
        training = self.candidate_training
        return (training.task,) if training is not None and training.task and training.tunes_teacher else ()


def phase_problems(phases: tuple[PhaseSettings, ...]) -> list[tuple[str, str]]:
    """What is wrong with phases in their order."""
    problems = repeated("phases.{}.name", (phase.name for phase in phases))
    if phases and phases[0].keep:
        found = f"found {', '.join(phases[0].keep)}, expected nothing in the first phase: no winner came before it"
        problems.append(("phases.0.keep", found))
    return problems
