"""A task that a supernet with a head learns: its rows, batches of them, and what a tuned teacher says of these.

Shape legend: B batch, T tokens, C classes (or 1 for a number).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spaces.supernet import PairSupernet
from trainers.errors import TrainingInputError
from trainers.tasks.batching import Encoded, labels_of
from trainers.tasks.catalogue import Kind, Task
from trainers.tasks.finetuning import FineTuningSettings, load_tuned_teacher
from trainers.tasks.judging import Lengths
from trainers.tasks.losses import fine_tuning_loss
from trainers.tasks.slices import TrainSlices, read_training_slice
from trainers.tasks.sources import TaskSource


@dataclass(frozen=True)
class TaughtTask:
    """A task, read and encoded.

    Attributes:
        task: a classification or regression.
        training: what is trained on.
        teacher: tuned on it, on the training's device; ``None``: the labels alone are learnt.
    """

    task: Task
    training: Encoded
    teacher: PreTrainedModel | None = None


def read_taught_task(
    task: Task,
    source: TaskSource,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Lengths,
    slices: TrainSlices,
    most: int | None = None,
    teacher: str | None = None,
    device: torch.device | None = None,
) -> TaughtTask:
    """Read the rows that are trained on, and load the teacher.

    Args:
        task: a classification or regression.
        source: where its data is.
        tokenizer: the supernet's.
        lengths: of sentences.
        slices: which rows.
        most: rows at most; ``None``: all of them.
        teacher: folder of a model that was tuned on the task; ``None`` for none.
        device: where the teacher is asked.

    Raises:
        TrainingInputError: data or teacher do not fit.
    """
    training = read_training_slice(task, source, tokenizer, lengths, slices, most)
    tuned = None if teacher is None else load_tuned_teacher(teacher, task, training, tokenizer, device)
    return TaughtTask(task, training, tuned)


@dataclass(frozen=True)
class TaughtBatch:
    """Some rows of a task, and what the tuned teacher says of them.

    Attributes:
        kind: of the task.
        rows: their numbers among those that are trained on.
        inputs: token ids, mask and, where there are any, segments.
        labels_B: a class or a number of each.
        soft_BC: the teacher's logits; ``None`` without a teacher.
    """

    kind: Kind
    rows: tuple[int, ...]
    inputs: Mapping[str, Tensor]
    labels_B: Tensor
    soft_BC: Tensor | None = None

    @classmethod
    def of(cls, taught: TaughtTask, rows: Sequence[int], device: torch.device) -> TaughtBatch:
        """A batch on a device, of which the teacher has not been asked yet."""
        kind = taught.task.kind
        labels_B = labels_of(taught.training, rows, kind).to(device)
        return cls(kind, tuple(rows), taught.training.inputs(rows, device), labels_B)

    @property
    def mask(self) -> Tensor:
        """1 for valid tokens, ``[B, T]``."""
        return self.inputs["attention_mask"]

    @property
    def tokens(self) -> int:
        """Valid tokens."""
        return int(self.mask.sum())

    def told(self, soft_BC: Tensor) -> TaughtBatch:
        """The same with what the teacher says."""
        return replace(self, soft_BC=soft_BC)

    def share(self, number: int, count: int) -> TaughtBatch:
        """Every so-many-th row, from one on; one row where there are fewer of them than shares."""
        places = list(range(len(self.rows)))[number::count] or [number % len(self.rows)]
        inputs = {name: tensor[places] for name, tensor in self.inputs.items()}
        soft_BC = None if self.soft_BC is None else self.soft_BC[places]
        return TaughtBatch(self.kind, tuple(self.rows[one] for one in places), inputs, self.labels_B[places], soft_BC)

    def loss(self, logits_BC: Tensor, tuning: FineTuningSettings) -> Tensor:
        """What a model's predictions of the batch lose, see :func:`~trainers.tasks.losses.fine_tuning_loss`."""
        weight = tuning.distillation_weight
        return fine_tuning_loss(self.kind, logits_BC, self.labels_B, self.mask, self.soft_BC, weight, tuning.imitation)


def supernet_inputs(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """A batch as a supernet takes it: ids, mask, and segments if there are any."""
    return inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")


def for_tasks(supernet: Any, space_name: str) -> PairSupernet[Any]:
    """The supernet, if it can tell the texts of a pair apart.

    Raises:
        TrainingInputError: it cannot.
    """
    if not isinstance(supernet, PairSupernet):
        raise TrainingInputError(
            f"space.name: found '{space_name}', whose supernet does not tell the texts of a pair apart, which tasks "
            f"have; expected a space such as efficient_bert or components"
        )
    return supernet
