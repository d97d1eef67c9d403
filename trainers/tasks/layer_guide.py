"""Task distillation layer by layer: a student's states and attention scores against those of its tuned teacher.

Shape legend: B batch, T tokens, C classes.

EfficientBERT tunes on a task by ``L_hidden + L_pred`` in one phase, with a teacher that was tuned on it. What a teacher
predicts is kept for each example; its layers are far too many numbers for that, so it runs on every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spaces.layer_states import LayerStates
from trainers.layer_losses import Padding, Scale, check_heads, check_width, layer_losses
from trainers.layer_recording import LayerRecording
from trainers.learners import matching_layers
from trainers.students import encoder_of
from trainers.tasks.catalogue import Task
from trainers.tasks.models import label_order, task_logits


class LayerGuide:
    """Runs a student with its head, and its tuned teacher, on the same batches.

    Args:
        student: with a head, on its device.
        teacher: with a head, in evaluation mode and without gradients, on the same device.
        padding: what padding counts for.
        scale: what the errors are measured in.

    Raises:
        TrainingInputError: they differ in heads, their layers do not match, or the student has no map to the teacher's
            width.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, padding: Padding, scale: Scale = "raw"
    ) -> None:
        self.student, self.teacher = student, teacher.eval()
        self.padding, self.scale = padding, scale
        self._ours, self._theirs = encoder_of(student), encoder_of(teacher)
        ours, theirs = LayerRecording(self._ours), LayerRecording(self._theirs)
        layers = matching_layers(self._ours, len(ours.layers), len(theirs.layers))
        ours_config: Any = self._ours.config
        theirs_config: Any = self._theirs.config
        check_heads(ours_config.num_attention_heads, theirs_config.num_attention_heads)
        check_width(ours_config.hidden_size, theirs_config.hidden_size)
        self._recordings = ours, LayerRecording(self._theirs, layers)

    def run(self, task: Task, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The student's logits (see :func:`~trainers.tasks.models.task_logits`), and ``L_hidden``, a scalar."""
        ours, theirs = self._recordings
        with ours:
            logits = task_logits(self.student, task, inputs)
        states = ours.states()
        with torch.no_grad(), theirs:
            self._theirs(**inputs)
            targets = theirs.states()
        return logits, layer_losses(states, targets, inputs["attention_mask"], self.padding, self.scale).total


class TunedTeacher:
    """A teacher that was tuned on a task, asked batch by batch for its predictions and its layers, in one pass.

    Args:
        model: with a head for the task, on its device.
        task: with its labels.
        layers: whose states are wanted, numbered from 1; none: predictions alone.
    """

    def __init__(self, model: PreTrainedModel, task: Task, layers: Sequence[int] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.task = task
        self._order = label_order(model.config, task)
        self._recording = LayerRecording(encoder_of(model), layers) if layers else None

    @torch.no_grad()
    def ask(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, LayerStates | None]:
        """Its logits ``[B, C]``, in the order of the task's labels, and the layers' states where they are wanted."""
        with self._recording or nullcontext():
            logits_BC = task_logits(self.model, self.task, inputs)[..., self._order]
        return logits_BC, None if self._recording is None else self._recording.states()
