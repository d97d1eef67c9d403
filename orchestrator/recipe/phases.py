"""The recipe's section ``phases``: a search in steps, each in the part of the space that the one before left."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.recipe.finetuning import TaskName
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
    Section,
    TrainingSettings,
    WeightDecay,
    raise_problems,
    repeated,
)
from orchestrator.recipe.supernet import Architectures


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
        "finetuning says; null: they learn the labels alone",
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
        if self.training_share + self.held_out_share > 1:
            found = f"found {self.held_out_share}, expected at most 1 - training_share, so that none is learnt there"
            problems.append(("held_out_share", found))
        raise_problems(problems)
        return self


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
        raise_problems(problems)
        return self

    @property
    def candidate_training(self) -> CandidateTrainingSettings | None:
        """How candidates are trained; ``None`` where they are not."""
        return (self.training or CandidateTrainingSettings()) if self.score == "training" else None


def phase_problems(phases: tuple[PhaseSettings, ...]) -> list[tuple[str, str]]:
    """What is wrong with phases in their order."""
    problems = repeated("phases.{}.name", (phase.name for phase in phases))
    if phases and phases[0].keep:
        found = f"found {', '.join(phases[0].keep)}, expected nothing in the first phase: no winner came before it"
        problems.append(("phases.0.keep", found))
    return problems
