"""Task distillation layer by layer: a student's states and attention scores against those of its tuned teacher.

Shape legend: B batch, T tokens, C classes.

EfficientBERT tunes on a task by ``L_hidden + L_pred`` in one phase, with a teacher that was tuned on it. What a teacher
predicts is kept for each example; its layers are far too many numbers for that, so it runs on every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainers.layer_losses import Padding, check_heads, check_width, layer_losses
from trainers.layer_recording import LayerRecording
from trainers.learners import matching_layers
from trainers.students import encoder_of
from trainers.tasks.catalogue import Task
from trainers.tasks.models import task_logits


class LayerGuide:
    """Runs a student with its head, and its tuned teacher, on the same batches.

    Args:
        student: with a head, on its device.
        teacher: with a head, in evaluation mode and without gradients, on the same device.
        padding: what padding counts for.

    Raises:
        TrainingInputError: they differ in heads, their layers do not match, or the student has no map to the teacher's
            width.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, padding: Padding) -> None:
        self.student, self.teacher, self.padding = student, teacher.eval(), padding
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
        return logits, layer_losses(states, targets, inputs["attention_mask"], self.padding).total
