"""Scores architectures by a task, with the weights that a supernet and its heads have after a training on tasks.

Shape legend: B batch, T tokens, D hidden size of the teacher, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.evaluation.device import ready_device
from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.model_parts.task_heads import Pooling
from spaces.registry import load_space
from spaces.supernet import PairSupernet
from trainers.precision import Precision, autocast
from trainers.supernet_store import load_weights, supernet_with
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.judging import evaluation_batches, sequence_scores
from trainers.tasks.models import load_config
from trainers.tasks.shared_heads import SharedHeads
from trainers.tasks.slices import TrainSlices, read_held_out
from trainers.tasks.sources import TaskSource
from trainers.tasks.taught_tasks import for_tasks, supernet_inputs
from trainers.teacher import TeacherSource


class TrainedHeads(Protocol):
    """What an evaluator has to know of a training that left weights and heads; the trainings' settings say it."""

    @property
    def tuning(self) -> FineTuningSettings:
        """How texts were read."""

    @property
    def pooling(self) -> Pooling:
        """What a sequence's class is read from."""

    @property
    def precision(self) -> Precision:
        """Number format of forward passes."""


@dataclass(frozen=True)
class TaskEvaluatorFactory:
    """Makes a :class:`TaskEvaluator` from folders; picklable, called once in each process.

    Attributes:
        teacher_folder: whose tokenizer and longest input the supernet has.
        weights: of the supernet that was trained on tasks.
        heads: of the tasks' heads (:class:`~trainers.tasks.shared_heads.SharedHeads`).
        space_name: of the supernet's space.
        space_options: the recipe's options of the space.
        task: that candidates are scored by, one of those.
        source: where its data is.
        settings: how supernet and heads were trained.
        slices: of the task's training split.
        device: where to evaluate.
        threads: for a processor; 0 leaves PyTorch's setting.
    """

    teacher_folder: Path
    weights: Path
    heads: Path
    space_name: str
    space_options: Mapping[str, Any]
    task: Task
    source: TaskSource
    settings: TrainedHeads
    slices: TrainSlices = field(default_factory=lambda: TrainSlices(0.9, 0.1))
    device: str = "cpu"
    threads: int = 0

    def __call__(self) -> TaskEvaluator:
        """Load everything into this process and make the evaluator of it; errors as in :meth:`load`."""
        return self.make(self.load())

    def load(self) -> TaskMaterial:
        """What all evaluators of these settings have in common, read once; its tensors are on the CPU.

        Raises:
            TrainingInputError: the task's data does not fit.
        """
        teacher = TeacherSource(str(self.teacher_folder))
        tokenizer = teacher.tokenizer()
        lengths = self.settings.tuning.lengths_for(load_config(str(self.teacher_folder)), tokenizer)
        held_out = read_held_out(self.task, self.source, tokenizer, lengths, self.slices).encoded
        batches = [
            HeldOutBatch(torch.from_numpy(rows.copy()), held_out.inputs(rows.tolist()))
            for rows in evaluation_batches(held_out)
        ]
        labels = np.asarray(held_out.labels)
        return TaskMaterial(teacher.shape(), load_weights(self.weights), load_weights(self.heads), batches, labels)

    def make(self, material: TaskMaterial) -> TaskEvaluator:
        """The evaluator of this process; on a processor its tensors are the material's own, which stay as they are."""
        device = ready_device(self.device, self.threads)
        space = load_space(self.space_name, self.space_options, material.shape)
        supernet = for_tasks(supernet_with(space, material.weights), self.space_name)
        heads = SharedHeads.with_weights(material.heads, self.settings.pooling)
        batches = [batch.to(device) for batch in material.batches]
        return TaskEvaluator(
            supernet.to(device), heads.to(device), batches, material.labels, self.task, self.settings, device
        )


@dataclass(frozen=True)
class HeldOutBatch:
    """Some of the rows that candidates are scored on.

    Attributes:
        rows: their numbers.
        inputs: token ids, mask and, where there are any, segments.
    """

    rows: Tensor
    inputs: Mapping[str, Tensor]

    def to(self, device: torch.device) -> HeldOutBatch:
        """The same, with its inputs on a device."""
        return HeldOutBatch(self.rows, {name: tensor.to(device) for name, tensor in self.inputs.items()})


@dataclass(frozen=True)
class TaskMaterial:
    """What evaluators are made of; nobody changes it, so processes of one machine can share its memory.

    Attributes:
        shape: of the teacher.
        weights: of the supernet, by name.
        heads: of the heads, by name.
        batches: all held-out rows, read and padded.
        labels: of each row, a class or a number.
    """

    shape: EncoderShape
    weights: Mapping[str, Tensor]
    heads: Mapping[str, Tensor]
    batches: Sequence[HeldOutBatch]
    labels: NDArray[Any]


class TaskEvaluator:
    """Holds a trained supernet with its heads, and scores networks by the held-out rows of a task.

    Args:
        supernet: in evaluation mode, on ``device``.
        heads: the same.
        batches: the held-out rows, on ``device``.
        labels: of each row.
        task: whose headline metric decides.
        settings: how supernet and heads were trained.
        device: where they are.
    """

    def __init__(
        self,
        supernet: PairSupernet[Any],
        heads: SharedHeads,
        batches: Sequence[HeldOutBatch],
        labels: NDArray[Any],
        task: Task,
        settings: TrainedHeads,
        device: torch.device,
    ) -> None:
        self.supernet, self.heads = supernet, heads
        self.batches, self.labels = batches, labels
        self.task, self.settings, self.device = task, settings, device

    def score(self, architectures: Sequence[Architecture], fidelity: int) -> list[Score]:
        """1 minus the task's headline metric over all held-out rows, of each network.

        Args:
            architectures: of the supernet's space.
            fidelity: there is only one, all rows.
        """
        started = time.perf_counter()
        found = self.logits(architectures)
        seconds = (time.perf_counter() - started) / max(1, len(architectures))
        scores = []
        for logits_RC in found:
            if not np.isfinite(logits_RC).all():  # the largest of numbers that are none would pass for a class
                scores.append(Score.failed(f"its predictions on {self.task.name} are not finite", seconds))
                continue
            metrics = sequence_scores(self.task, logits_RC, self.labels)
            scores.append(Score("ok", 1.0 - metrics[self.task.headline], seconds))
        return scores

    @torch.inference_mode()
    def logits(self, architectures: Sequence[Architecture]) -> list[NDArray[np.float32]]:
        """What each network predicts of every held-out row, ``[rows, C]`` in the rows' order."""
        size = len(self.labels), self.task.num_outputs
        found_ARC = torch.empty(len(architectures), *size, device=self.device)
        for batch in self.batches:
            texts, rows = supernet_inputs(batch.inputs), batch.rows.to(self.device)
            for place, architecture in enumerate(architectures):
                with autocast(self.settings.precision, self.device):
                    last_BTD = self.supernet(architecture, *texts)
                    found_ARC[place, rows] = self.heads(self.task.name, last_BTD, texts[1])
        return list(found_ARC.cpu().numpy())
