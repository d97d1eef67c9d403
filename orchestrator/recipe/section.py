"""What all sections of a recipe are made of: field types, cross-checks, and the sections that others extend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from orchestrator.recipe.budgets import Size, parse_flops, parse_latency_ms, parse_size
from orchestrator.recipe.sources import check_corpus_source, check_teacher_source

Precision = Literal["auto", "float32", "bfloat16"]
LayerPadding = Literal["counted", "masked"]
"""What padding counts for where states are compared layer by layer."""
LayerScale = Literal["raw", "relative"]
"""What the errors of that comparison are measured in."""
Objective = Literal["loss", "parameters", "encoder_parameters", "flops", "latency_ms", "measured_latency_ms"]


class HowItRuns:
    """Marks a field that does not change what a run computes."""


class Later:
    """Marks a field that came when there were runs without it; at its default everything is as it was before.

    At that default it does not count in signatures, so that those runs are not run again for its sake.
    """


def as_before(field: FieldInfo, value: Any) -> bool:
    """Whether a field came later and has the value with which everything is as it was before."""
    is_later = any(isinstance(mark, Later) for mark in field.metadata)
    return is_later and bool(value == field.get_default(call_default_factory=True))


Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
SequenceLength = Annotated[int, Field(ge=4, le=65_536)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
GradientClip = Annotated[float, Field(gt=0, le=1e6)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
CorpusSource = Annotated[str, PlainValidator(check_corpus_source)]
TeacherSource = Annotated[str, PlainValidator(check_teacher_source)]
LatencyLimit = Annotated[float, BeforeValidator(parse_latency_ms)]
FlopsLimit = Annotated[int, BeforeValidator(parse_flops)]
SizeLimit = Annotated[Size, PlainValidator(parse_size), PlainSerializer(Size.as_value)]

Problem = tuple[str, str]
"""A cross-check that failed: the key within its section ("" for the section itself), and one sentence."""


def raise_problems(problems: Iterable[Problem]) -> None:
    """End a validation with every cross-check that failed, so that a person sees them all at once."""
    found = list(problems)
    if found:
        raise PydanticCustomError("cross_check", "keys that contradict each other", {"problems": found})


def at_most(key: str, value: float, other_key: str, other: float) -> list[Problem]:
    """The problem of ``key`` exceeding ``other_key``, if it does."""
    if value <= other:
        return []
    return [(key, f"found {value}, expected at most {other_key}, which is {other}; lower it too")]


def repeated(key: str, values: Iterable[str]) -> list[Problem]:
    """One problem for each value that occurs again; ``{}`` in ``key`` stands for the entry's index."""
    seen: set[str] = set()
    problems = []
    for index, value in enumerate(values):
        if value in seen:
            problems.append((key.format(index), f"found {value!r} a second time, expected each only once"))
        seen.add(value)
    return problems


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, types are not converted, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _nothing_changed(cls, data: Any) -> Any:
        """Read a section that is named but left empty as all its defaults."""
        return {} if data is None else data


class ScalingSettings(Section):
    """How a training is spread over workers."""

    workers: int = Field(1, ge=1, le=10_000, description="training processes")
    cpus_per_worker: float = Field(2, gt=0, le=10_000, description="processor cores reserved for each worker")
    gpus_per_worker: float = Field(0, ge=0, le=1_000, description="accelerators for each worker; fractions share one")
    max_failures: int = Field(3, ge=0, le=1_000_000, description="lost workers after which a training gives up")

    @model_validator(mode="after")
    def _whole_accelerators(self) -> ScalingSettings:
        if self.gpus_per_worker > 1 and not self.gpus_per_worker.is_integer():
            message = f"found {self.gpus_per_worker}, expected a fraction below 1 or a whole number"
            raise_problems([("gpus_per_worker", message)])
        return self


class TrainingSettings(Section):
    """What every training has: its length, its optimiser, its reports and its workers."""

    steps: Count = Field(100, description="optimiser steps")
    batch_size: BatchSize = Field(32, description="sequences a step, all workers together")
    learning_rate: LearningRate = Field(5e-4, description="peak learning rate")
    warmup_steps: CountOrNone = Field(
        10, description="steps of linear warm-up; where absent: a tenth of steps, at most 10"
    )
    weight_decay: WeightDecay = Field(0.01, description="decoupled weight decay")
    gradient_clip: GradientClip | None = Field(1.0, description="largest norm of the gradient; null: no clipping")
    precision: Precision = Field("auto", description="number format; auto: bfloat16 where the hardware computes in it")
    checkpoint_every: Annotated[Count, HowItRuns()] = Field(
        50, description="steps between checkpoints; where absent: 50, or steps if fewer; the last step is always saved"
    )
    report_every: Annotated[Count, HowItRuns()] = Field(
        10, description="steps between rows of the training table; where absent: 10, or steps if fewer"
    )
    scaling: Annotated[ScalingSettings, HowItRuns()] = Field(
        default_factory=ScalingSettings, description="workers and their resources"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_short_training(cls, data: Any) -> Any:
        """Fit absent intervals to ``steps``, so that shortening a training is one key's work."""
        if not isinstance(data, dict):
            return data
        steps = data.get("steps", cls.model_fields["steps"].default)
        if not isinstance(steps, int) or steps < 1:
            return data
        fitting = {"warmup_steps": min(10, steps // 10)}
        fitting |= {key: min(cls.model_fields[key].default, steps) for key in ("checkpoint_every", "report_every")}
        return fitting | data

    @model_validator(mode="after")
    def _check_intervals_and_batch(self) -> TrainingSettings:
        problems = [
            *at_most("warmup_steps", self.warmup_steps, "steps", self.steps),
            *at_most("checkpoint_every", self.checkpoint_every, "steps", self.steps),
            *at_most("report_every", self.report_every, "steps", self.steps),
        ]
        workers = self.scaling.workers
        if self.batch_size % workers:
            found = f"found {self.batch_size}, expected a multiple of scaling.workers, which is {workers}"
            problems.append(("batch_size", found))
        raise_problems(problems)
        return self
