"""One-shot search by a task: paths of a supernet under one head learn labels, and what a tuned teacher predicts.

Shape legend: B batch, T tokens, D hidden size of the teacher, C classes (or 1 for a number).

``L_task`` of the paper notes' objective (section 6). A search that starts at a tuned teacher starts at its predictions:
encoder and head are the teacher's, so that the largest architecture *is* the tuned teacher. From then on the head
learns with the weights, in all phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spaces.errors import SpaceError
from spaces.model_parts.task_heads import Pooling
from spaces.sampled_space import CostName, LatencyPrices
from spaces.sampling_distribution import SampledSupernet
from trainers.errors import TrainingInputError
from trainers.losses import prediction_divergence
from trainers.oneshot import OneShotSearch, first_in_order, named_cost, sampled_space
from trainers.oneshot_lessons import Learned
from trainers.oneshot_settings import OneShotSettings
from trainers.precision import Precision, autocast
from trainers.students import encoder_of
from trainers.task import tensors_of
from trainers.tasks.batching import GroupedBatches
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings, load_tuned_teacher
from trainers.tasks.headed_models import check_head, copy_head
from trainers.tasks.layer_guide import TunedTeacher
from trainers.tasks.models import load_config
from trainers.tasks.shared_heads import BERT_DROPOUT, Pooler, SharedHeads
from trainers.tasks.slices import TrainSlices
from trainers.tasks.sources import TaskSource
from trainers.tasks.taught_tasks import TaughtBatch, TaughtTask, read_taught_task, supernet_inputs
from trainers.teacher import TeacherSource

_HEADS = "heads"
_CALIBRATION_ROWS = 256


@dataclass(frozen=True)
class OneShotTaskSettings:
    """How a supernet, its distribution and a task's head are trained together.

    Attributes:
        search: batch size, seed, optimiser, phases, paths and estimator; the seed is also that of the order of
            examples and of a new head.
        tuning: how texts are read, and what is learnt of labels and a tuned teacher: lengths, pooling, dropout before
            the classifier, most examples, weight and form of the imitation. Its schedule is not used, and layers are
            not compared: a path may lack any of them.
    """

    search: OneShotSettings
    tuning: FineTuningSettings

    @property
    def precision(self) -> Precision:
        """Number format of forward passes."""
        return self.search.precision

    @property
    def pooling(self) -> Pooling:
        """What a sequence's class is read from; in BERT's own head, the first token."""
        return "first" if self.tuning.pooling == "own" else self.tuning.pooling

    @property
    def pooler(self) -> Pooler:
        """What comes before the classifier: BERT's pooler in its own head, nothing in the others."""
        return "shared" if self.tuning.pooling == "own" else "none"


@dataclass(frozen=True)
class TaskLesson:
    """Rows of a task that paths learn.

    Attributes:
        batch: with the teacher's predictions, if there is one.
        task: with its labels.
        heads: with a classifier for the task.
        settings: of the training.
    """

    batch: TaughtBatch
    task: Task
    heads: SharedHeads
    settings: OneShotTaskSettings

    @property
    def tokens(self) -> int:
        """Valid tokens."""
        return self.batch.tokens

    def share(self, number: int, count: int) -> TaskLesson:
        """Every so-many-th row, from one on; one row where there are fewer of them than paths."""
        return replace(self, batch=self.batch.share(number, count))

    def learn(self, supernet: SampledSupernet[Any], runnable: Any) -> Learned:
        """See :meth:`trainers.oneshot_lessons.Lesson.learn`.

        The metric is the divergence from the teacher, where there is one and it predicts classes.
        """
        batch = self.batch
        with autocast(self.settings.precision, batch.labels_B.device):
            last_BTD = supernet(runnable, *supernet_inputs(batch.inputs))
            logits_BC = self.heads(self.task.name, last_BTD, batch.mask)
        metrics: dict[str, Tensor] = {}
        if batch.soft_BC is not None and batch.kind == "classification":
            metrics["kl_divergence"] = prediction_divergence(logits_BC.detach(), batch.soft_BC, 1.0)
        return Learned(batch.loss(logits_BC, self.settings.tuning), metrics)


class TaskLessons:
    """Batches of a task, each worker's rows its own, and the head that learns with the supernet.

    Args:
        taught: the task, and who teaches it.
        heads: with a classifier for it, at their start.
        settings: of the training.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
    """

    def __init__(
        self,
        taught: TaughtTask,
        heads: SharedHeads,
        settings: OneShotTaskSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.taught = taught
        self.heads = heads.to(self.device).train()
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.batches = GroupedBatches(taught.training.lengths, settings.search.batch_size, settings.search.seed)
        self._teacher = None if taught.teacher is None else TunedTeacher(taught.teacher, taught.task)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The head."""
        return {_HEADS: self.heads}

    def draw(self, step: int) -> TaskLesson:
        """This worker's rows of a step, of which the teacher is asked once for all paths."""
        rows = self.batches.rows(step, self.rank, self.world_size).tolist()
        batch = TaughtBatch.of(self.taught, rows, self.device)
        if self._teacher is not None:
            with autocast(self.settings.precision, self.device):
                soft_BC, _ = self._teacher.ask(batch.inputs)
            batch = batch.told(soft_BC)
        return TaskLesson(batch, self.taught.task, self.heads, self.settings)


@dataclass(frozen=True)
class OneShotTaskFactory:
    """Makes a worker's search by a task from folders; picklable.

    Attributes:
        teacher_folder: whose sizes, tokenizer and longest input the supernet has, and where it starts unless ``start``
            says otherwise; a Hugging Face folder.
        space_name: of a space with a distribution.
        space_options: the recipe's options of the space.
        task: a classification or regression.
        source: where its data is.
        settings: how to train.
        slices: which rows of the training split.
        teacher: folder of a model tuned on the task, whose predictions count by the settings' ``distillation_weight``;
            ``None``: the labels alone are learnt.
        start: folder of a BERT tuned on the task, of the teacher's sizes, whose encoder and head the search starts at;
            mostly the same as ``teacher``. ``None``: it starts at the run's teacher, with a new head.
        cost: what is to become cheaper: a count, or latency by its prices on a device.
        sequence_length: tokens that FLOPs are counted for; ``None``: of the training rows on the average.
    """

    teacher_folder: Path
    space_name: str
    space_options: Mapping[str, Any]
    task: Task
    source: TaskSource
    settings: OneShotTaskSettings
    slices: TrainSlices = field(default_factory=lambda: TrainSlices(0.9, 0.1))
    teacher: str | None = None
    start: str | None = None
    cost: CostName | LatencyPrices = "flops"
    sequence_length: int | None = None

    def __call__(self, rank: int, world_size: int, device: torch.device) -> OneShotSearch:
        """Load data and models, and set the start of supernet, head and distribution.

        Raises:
            TrainingInputError: the space has no distribution, or data, teacher or start do not fit.
        """
        source, settings, tuning = TeacherSource(str(self.teacher_folder)), self.settings, self.settings.tuning
        shape, tokenizer = source.shape(), source.tokenizer()
        space = sampled_space(self.space_name, self.space_options, shape)
        lengths = tuning.lengths_for(load_config(str(self.teacher_folder)), tokenizer)
        teacher = self.teacher if tuning.distillation_weight > 0 else None
        most = tuning.max_train_examples
        taught = read_taught_task(self.task, self.source, tokenizer, lengths, self.slices, most, teacher, device)
        torch.manual_seed(settings.search.seed)
        dropout = BERT_DROPOUT if tuning.dropout is None else tuning.dropout
        outputs = {self.task.name: self.task.num_outputs}
        heads = SharedHeads(shape.hidden_size, outputs, settings.pooling, settings.pooler, dropout)
        supernet: Any = space.supernet()
        shown = _examples(taught), settings.search.order
        if self.start is None:
            supernet.start(first_in_order(source.load().model, *shown, rank, world_size))
        else:
            tuned = taught.teacher if self.start == teacher else None
            if tuned is None:
                tuned = load_tuned_teacher(self.start, self.task, taught.training, tokenizer, device)
            check_head(heads, tuned, self.start)
            encoder = first_in_order(encoder_of(tuned), *shown, rank, world_size)
            _start_at(encoder, self.start, supernet)
            copy_head(heads, self.task, tuned)
        length = self.sequence_length or max(1, round(float(taught.training.lengths.mean())))
        cost = named_cost(space, self.cost, length)
        lessons = TaskLessons(taught, heads, settings, rank, world_size, device)
        return OneShotSearch(supernet, space, cost, lessons, settings.search, rank, world_size, device)


def _examples(taught: TaughtTask) -> tuple[Tensor, Tensor]:
    """Training rows that tell what of a model is important, spread evenly: (input ids, attention mask)."""
    count = len(taught.training.lengths)
    rows = range(0, count, max(1, count // _CALIBRATION_ROWS))[:_CALIBRATION_ROWS]
    inputs = taught.training.inputs(list(rows), torch.device("cpu"))
    return inputs["input_ids"], inputs["attention_mask"]


def _start_at(encoder: PreTrainedModel, source: str, supernet: Any) -> None:
    try:
        supernet.start(encoder)
    except SpaceError as error:
        raise TrainingInputError(str(error).replace("teacher:", f"teacher '{source}':", 1)) from error


def head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's weights out of the tensors of a search by a task, as :meth:`SharedHeads.with_weights` takes them."""
    return tensors_of(_HEADS, tensors)
