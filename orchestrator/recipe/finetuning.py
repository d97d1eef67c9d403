"""The recipe's section ``finetuning``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, field_validator, model_validator

from orchestrator.recipe.section import (
    BatchSize,
    Count,
    GradientClip,
    HowItRuns,
    Later,
    LayerPadding,
    LayerScale,
    LearningRate,
    Precision,
    Section,
    SequenceLength,
    Weight,
    WeightDecay,
    raise_problems,
    repeated,
)
from trainers.tasks.catalogue import find_task


def _check_task(value: object) -> str:
    """The task's proper name.

    Raises:
        ValueError: there is no such task; the message names the nearest.
    """
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected the name of a task, such as sst2")
    try:
        return find_task(value).name
    except ValueError as error:
        raise ValueError(str(error).removeprefix("tasks: ")) from None


def kind_problem(name: str) -> str | None:
    """Why candidates cannot be judged on a task, which takes texts with a class or a number; ``None`` if they can."""
    task = find_task(name)
    if task.kind in ("classification", "regression"):
        return None
    expected = "one of texts with a class or a number, such as sst2 or mnli"
    return f"found {task.name}, a task of {task.kind}; expected {expected}"


TaskName = Annotated[str, PlainValidator(_check_task)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class FineTuningSettings(Section):
    """Judging the models on downstream tasks, each tuned with the same settings; without tasks nothing happens."""

    tasks: tuple[TaskName, ...] = Field(
        (),
        strict=False,
        description="cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, squad_v1, squad_v2, conll2000, wnut17, ewt, "
        "authors (its rows come with netsuke), or tags:<folder>:<column>",
    )
    data: str | None = Field(
        None,
        min_length=1,
        description="folder (relative to the recipe file) with a folder of Parquet files for each task, such as "
        "glue/sst2/train.parquet; dataset:<name or folder>[:<configuration>]: one data set as the library datasets "
        "names it, such as dataset:nyu-mll/glue; null: the data sets of the Hugging Face hub",
    )
    train_data: dict[str, str] = Field(
        default_factory=dict,
        description="for tasks whose training rows are elsewhere: a folder within data, such as squad_v1: squadshifts; "
        "where data is a dataset, <name or folder>[:<configuration>]",
    )
    seeds: tuple[Seed, ...] = Field((1,), strict=False, min_length=1, description="seeds of each fine-tuning")
    distil: bool = Field(
        True, description="whether the teacher is tuned first and the other models imitate it beside learning the task"
    )
    teacher_epochs: Annotated[Count | None, Later()] = Field(
        None, description="passes of the teacher over the training rows; null: epochs"
    )
    teacher_learning_rate: Annotated[LearningRate | None, Later()] = Field(
        None, description="peak learning rate of the teacher, which is larger than the others; null: learning_rate"
    )
    distillation_weight: float = Field(0.5, ge=0, le=1, description="share of the imitation in the loss (lambda)")
    temperature: float = Field(1.0, gt=0, le=1000, description="of the softmax over predictions")
    imitation: Literal["kl", "soft_cross_entropy"] = Field(
        "kl",
        description="how far a model's predictions are from its teacher's: by divergence (NAS-BERT), or by the cross "
        "entropy of soft labels (TinyBERT, EfficientBERT)",
    )
    imitation_classes: Literal["mean", "sum"] = Field(
        "mean",
        description="of soft_cross_entropy: the mean over the classes, which makes it smaller by their number "
        "(TinyBERT, EfficientBERT), or the sum",
    )
    imitation_numbers: Literal["teacher", "labels"] = Field(
        "teacher",
        description="what stsb's imitation is: the squared error to the teacher's number, or to the gold label "
        "(EfficientBERT)",
    )
    imitation_first_token: Literal["kept", "hidden"] = Field(
        "kept",
        description="whether answers may begin or end at the first token where they imitate the teacher's; hidden is "
        "EfficientBERT's, and leaves spans of squad_v2 without a target for no answer",
    )
    layer_weight: Weight = Field(
        0.0,
        description="weight of the comparison with the tuned teacher layer by layer (embeddings, hidden states, "
        "attention scores), added to the loss; it takes as many heads as the teacher has, and the teacher runs on "
        "every batch; 1 is EfficientBERT's, 0 is none",
    )
    layer_padding: LayerPadding = Field(
        "counted", description="what padding counts for in it, as in distillation.layer_padding"
    )
    layer_scale: LayerScale = Field(
        "raw", description="what its errors are measured in, as in distillation.layer_scale"
    )
    start_from: Literal["mnli"] | None = Field(
        None, description="mnli: RTE, MRPC and STS-B start from the model tuned on MNLI, as in the paper"
    )
    epochs: Count = Field(3, description="passes over the training rows")
    batch_size: BatchSize = Field(32, description="examples a step")
    learning_rate: LearningRate = Field(1e-4, description="peak learning rate")
    warmup_share: float = Field(0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: WeightDecay = Field(0.01, description="decoupled weight decay")
    gradient_clip: GradientClip | None = Field(25.0, description="largest norm of the gradient; null: no clipping")
    max_length: SequenceLength = Field(128, description="tokens of a text or pair that are read")
    answer_length: SequenceLength = Field(384, description="tokens of a window of question and context")
    answer_stride: Count = Field(128, description="tokens by which the windows of a context overlap")
    answerability: Literal["layer", "span"] = Field(
        "layer",
        description="how squad_v2 finds that a question has no answer: a binary layer on the first token, trained "
        "together with the spans (the paper's, RoBERTa's), or a span at the first token that scores highest (BERT's)",
    )
    dropout: float | None = Field(0.1, ge=0, lt=1, description="dropout everywhere in a model; null: each model's own")
    pooling: Literal["first", "mean", "own"] = Field(
        "first",
        description="what the class of a text is read from, on every model alike: the first token's state or the mean "
        "of all (sentence encoders such as all-MiniLM), both by one linear map; own: the head Hugging Face gives each",
    )
    keep: Literal["last", "best"] = Field(
        "last", description="the weights that are judged: after the last epoch, or of the epoch with the best dev score"
    )
    max_train_examples: Count | None = Field(
        None, description="training rows at most, the same for every model and seed; null: all"
    )
    max_eval_examples: Count | None = Field(None, description="rows of a dev split at most; null: all")
    precision: Precision = Field("auto", description="number format; auto: bfloat16 where the hardware computes in it")
    save_models: Annotated[bool, HowItRuns()] = Field(False, description="whether the tuned models are kept")
    actors: Annotated[int, HowItRuns()] = Field(
        2, ge=1, le=10_000, description="processes that tune, each another model, task or seed"
    )
    cpus_per_actor: Annotated[float, HowItRuns()] = Field(
        1, gt=0, le=10_000, description="processor cores reserved for each process"
    )
    gpus_per_actor: Annotated[float, HowItRuns()] = Field(0, ge=0, le=1_000, description="accelerators for each")

    @field_validator("data")
    @classmethod
    def _hub_is_nothing(cls, data: str | None) -> str | None:
        """``hub``, as the command line has it, is the default."""
        return None if data == "hub" else data

    @model_validator(mode="after")
    def _check_lists(self) -> FineTuningSettings:
        problems = repeated("tasks.{}", self.tasks) + repeated("seeds.{}", map(str, self.seeds))
        if self.train_data and self.data is None:
            problems.append(("train_data", "found folders without data, expected a folder of Parquet files in data"))
        problems += [
            (f"train_data.{task}", f"found '{task}', expected one of the tasks: {', '.join(self.tasks) or 'none'}")
            for task in self.train_data
            if task not in self.tasks and not (task == "mnli" and self.start_from == "mnli")
        ]
        raise_problems(problems)
        return self
