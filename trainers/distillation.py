"""Distilling stand-alone students from the teacher, several at once on the same batches.

Shape legend: B batch, T tokens, N positions, H width of a student's state, D hidden size of the teacher, V vocabulary.

Students that are to be compared are trained together: every one sees the same batches in the same order, takes the same
number of steps, and the teacher's forward pass is paid once for all.

Three objectives: ``masked_lm`` is the pre-training stage of two-stage distillation (NAS-BERT, equation 2), in which
each student predicts masked tokens with a head of its own; ``hidden_states`` brings states and sentence embeddings to
the teacher's, and needs no head at either end; ``layer_states`` compares embeddings, hidden states and attention scores
layer by layer (EfficientBERT, :mod:`trainers.layer_losses`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spaces.layer_states import LayerStates
from trainers.corpus import PackedCorpus
from trainers.distillation_settings import DistillationSettings
from trainers.layer_losses import layer_losses, some_blocks
from trainers.learners import Learner, Outputs
from trainers.losses import (
    embedding_cosine,
    masked_lm_loss,
    masked_mse,
    masked_variance,
    prediction_divergence,
    two_stage_loss,
)
from trainers.masking import MaskedBatch, Masking, accuracy_of
from trainers.meters import IntervalMeter
from trainers.optimisation import apply_step, make_optimiser
from trainers.precision import autocast
from trainers.students import load_own_tensors, load_whole_student, own_tensors
from trainers.task import Row, TrainingTask
from trainers.teacher import Teacher, TeacherSource


@dataclass(frozen=True)
class Student:
    """A student to distil.

    Attributes:
        label: its name within the run.
        arch_id: of its architecture; empty for a uniform baseline.
        folder: a Hugging Face folder with the weights to start from.
        alignment: pairs (index into the student's hidden states, layer of the teacher) of intermediate states that are
            to match; layer 0 is the embeddings' output.
    """

    label: str
    arch_id: str
    folder: Path
    alignment: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class DistillationFactory:
    """Makes a worker's :class:`Distillation` from folders; picklable.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus.
        students: to distil together.
        settings: how.
    """

    teacher_folder: Path
    corpus_folder: Path
    students: tuple[Student, ...]
    settings: DistillationSettings

    def __call__(self, rank: int, world_size: int, device: torch.device) -> Distillation:
        """Load teacher, corpus and students."""
        teacher = TeacherSource(str(self.teacher_folder)).load()
        models = [load_whole_student(student.folder) for student in self.students]
        corpus = PackedCorpus(self.corpus_folder)
        return Distillation(self.students, models, teacher, corpus, self.settings, rank, world_size, device)


class Distillation(TrainingTask):
    """Distils students together.

    Args:
        students: what is distilled.
        models: their models, in the same order; with a masked-LM head where the objective needs one.
        teacher: gives the targets.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.

    Raises:
        TrainingInputError: teacher or students have no head, but the objective needs it.
    """

    def __init__(
        self,
        students: Sequence[Student],
        models: Sequence[nn.Module],
        teacher: Teacher,
        corpus: PackedCorpus,
        settings: DistillationSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.students = students
        self.teacher = teacher
        self.corpus = corpus
        self.settings = resolved = settings.resolved(teacher.masked_lm_head is not None)
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        first_ids_BT, first_mask_BT = corpus.even_batches(1, settings.batch_size)[0]
        self.learners = [
            Learner(model, student.alignment, teacher, first_ids_BT, first_mask_BT, resolved).to(self.device).train()
            for student, model in zip(students, models, strict=True)
        ]
        self.teacher.to(self.device)  # after the learners' maps were fitted, on the processor
        self.optimisers = [make_optimiser(learner, settings.optimiser) for learner in self.learners]
        self._masking = Masking.of_tokenizer(teacher.tokenizer, resolved.mask_probability if resolved.predicts else 0.0)
        self._layers = sorted({layer for student in students for _, layer in student.alignment})
        compared = {layer for learner in self.learners for layer in learner.layers}
        aligned = {layer for layer in self._layers if layer and resolved.intermediate_weight}
        self._compared = sorted(compared | aligned) if compared else []
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    def step(self, step: int) -> None:
        """Run the teacher once and update every student on it."""
        settings = self.settings
        input_ids_BT, mask_BT = self.corpus.step_rows(
            step, settings.batch_size, settings.seed, self.rank, self.world_size
        )
        noise = hash((settings.seed, step, self.rank))
        batch = self._masking.mask(input_ids_BT, mask_BT, noise).to(self.device)
        targets = self._ask_teacher(batch)
        for student, learner, optimiser in zip(self.students, self.learners, self.optimisers, strict=True):
            torch.manual_seed(noise)  # the same dropout for a student, whoever is distilled beside it
            with autocast(settings.precision, self.device):
                outputs = learner(batch.input_ids_BT, batch.attention_mask_BT, targets.predicted_BT)
            terms = self._terms(learner, outputs, targets)
            terms["loss"].backward()
            apply_step(optimiser, settings.optimiser, step, [learner])
            for name, value in terms.items():
                self._meter.add((student.label, name), value.item())
        self._tokens += int(mask_BT.sum()) * self.world_size

    def _ask_teacher(self, batch: MaskedBatch) -> _Targets:
        """The teacher's states and predictions, as far as they are needed."""
        settings, head = self.settings, self.teacher.masked_lm_head
        predicted_BT = None
        if settings.predicts:
            everywhere = settings.kl_positions == "all" and settings.kl_share > 0
            predicted_BT = batch.attention_mask_BT.to(torch.bool) if everywhere else batch.positions()
        wants_logits = settings.predicts and settings.kl_share > 0
        if not (wants_logits or settings.compares_states or settings.compares_layers):
            return _Targets(batch, predicted_BT)
        layers = [*(self._layers if settings.intermediate_weight else []), self.teacher.shape.num_layers]
        told = None
        with torch.no_grad(), autocast(settings.precision, self.device):
            if settings.compares_layers:
                told = self.teacher.layer_states(batch.input_ids_BT, batch.attention_mask_BT, self._compared)
                by_layer = {0: told.embeddings_BTD, **dict(zip(self._compared, told.hidden_BTD, strict=True))}
                states = [by_layer[layer] for layer in layers]
            else:
                states = self.teacher.states(batch.input_ids_BT, batch.attention_mask_BT, layers)
            logits_NV = None if head is None or not wants_logits else head(states[-1][predicted_BT]).float()
        states = [state.float() for state in states]
        return _Targets(batch, predicted_BT, dict(zip(layers, states, strict=True)), states[-1], logits_NV, told)

    def _terms(self, learner: Learner, outputs: Outputs, targets: _Targets) -> dict[str, Tensor]:
        """The loss under ``loss``, and what else is worth a column."""
        terms: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if self.settings.predicts:
            losses.append(self._prediction_loss(outputs, targets, terms))
        if self.settings.compares_layers:
            losses.append(self._layer_loss(learner, outputs, targets, terms))
        if self.settings.compares_states:
            losses.append(self._state_loss(outputs, targets, terms))
        return {"loss": losses[0] if len(losses) == 1 else losses[0] + losses[1], **terms}

    def _prediction_loss(self, outputs: Outputs, targets: _Targets, terms: dict[str, Tensor]) -> Tensor:
        settings, batch = self.settings, targets.batch
        assert outputs.logits_NV is not None
        assert targets.predicted_BT is not None
        masked_logits_NV = outputs.logits_NV[batch.positions()[targets.predicted_BT]]
        labels_N = batch.labels()
        likelihood = masked_lm_loss(masked_logits_NV, labels_N)
        divergence = None
        if targets.logits_NV is not None:
            divergence = prediction_divergence(outputs.logits_NV, targets.logits_NV, settings.temperature)
            terms["kl_divergence"] = divergence.detach()
        terms["masked_lm_loss"] = likelihood.detach()
        terms["masked_lm_accuracy"] = accuracy_of(masked_logits_NV.detach(), labels_N)
        return two_stage_loss(likelihood, divergence, settings.kl_share)

    def _layer_loss(self, learner: Learner, outputs: Outputs, targets: _Targets, terms: dict[str, Tensor]) -> Tensor:
        """``L_hidden`` against the layers that this student learns from."""
        assert outputs.layers is not None
        assert outputs.last_BTD is not None
        assert targets.layers is not None
        assert targets.last_BTD is not None
        mask_BT = targets.batch.attention_mask_BT
        theirs = some_blocks(targets.layers, [self._compared.index(layer) for layer in learner.layers])
        terms["relative_mse"] = _relative_mse(outputs.last_BTD.detach(), targets.last_BTD, mask_BT)
        return layer_losses(outputs.layers, theirs, mask_BT, self.settings.layer_padding).total

    def _state_loss(self, outputs: Outputs, targets: _Targets, terms: dict[str, Tensor]) -> Tensor:
        settings, mask_BT = self.settings, targets.batch.attention_mask_BT
        assert outputs.last_BTD is not None
        assert targets.last_BTD is not None
        assert settings.hidden_weight is not None
        assert settings.intermediate_weight is not None
        assert settings.embedding_weight is not None

        relative_mse = _relative_mse(outputs.last_BTD, targets.last_BTD, mask_BT)
        loss = settings.hidden_weight * relative_mse
        if settings.intermediate_weight > 0 and outputs.aligned:
            errors = [
                _relative_mse(state_BTD, targets.by_layer[layer], mask_BT) for layer, state_BTD in outputs.aligned
            ]
            loss = loss + settings.intermediate_weight * torch.stack(errors).mean()
        if settings.embedding_weight > 0:
            cosine_B = embedding_cosine(outputs.last_BTD, targets.last_BTD, mask_BT)
            loss = loss + settings.embedding_weight * (1 - cosine_B.mean())
        terms["relative_mse"] = relative_mse.detach()
        return loss

    def rows(self, steps_done: int) -> list[Row]:
        """One row a student: means over the interval, and what the whole training has consumed."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        return [
            {
                "stage": "distillation",
                "subject": student.label,
                "arch_id": student.arch_id,
                "step": steps_done,
                **{name: means.get((student.label, name)) for name in _MEASURED},
                "learning_rate": self.settings.optimiser.learning_rate_at(steps_done - 1),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "workers": self.world_size,
            }
            for student in self.students
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights of all students, each under ``<label>/``."""
        return {
            f"{student.label}/{name}": tensor
            for student, learner in zip(self.students, self.learners, strict=True)
            for name, tensor in own_tensors(learner).items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights of all students."""
        for student, learner in zip(self.students, self.learners, strict=True):
            load_own_tensors(learner, student_tensors(tensors, student.label))

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments of every student, the token count and the unfinished interval's sums."""
        return {
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "tokens": self._tokens,
            "meter": self._meter.state(),
        }

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over Adam's moments, the token count and the unfinished interval's sums."""
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])


def student_tensors(tensors: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """The weights of one student's learner out of :meth:`Distillation.tensors`."""
    prefix = f"{label}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def model_tensors(tensors: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """The weights of one student's model, without what only served its training."""
    prefix = "model."
    learner = student_tensors(tensors, label)
    return {name.removeprefix(prefix): tensor for name, tensor in learner.items() if name.startswith(prefix)}


def finished_student(folder: Path, tensors: Mapping[str, Tensor], label: str) -> PreTrainedModel:
    """A student as it is after its distillation, with its head if it has one.

    Args:
        folder: the student before it.
        tensors: of :meth:`Distillation.tensors`.
        label: which student.
    """
    model = load_whole_student(folder)
    load_own_tensors(model, model_tensors(tensors, label))
    return model


_MEASURED = ("loss", "relative_mse", "masked_lm_loss", "masked_lm_accuracy", "kl_divergence")
"""Columns of a training row that are means over the interval, where the objective has them."""


def _relative_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    return masked_mse(student_BTD, teacher_BTD, mask_BT) / masked_variance(teacher_BTD, mask_BT)


@dataclass(frozen=True)
class _Targets:
    """A batch and what the teacher says of it, as far as it was asked."""

    batch: MaskedBatch
    predicted_BT: Tensor | None
    by_layer: Mapping[int, Tensor] = field(default_factory=dict)
    last_BTD: Tensor | None = None
    logits_NV: Tensor | None = None
    layers: LayerStates | None = None
