"""Distilling stand-alone students from the teacher, several at once on the same batches.

Shape legend: B batch, T tokens, H width of a student's state, D hidden size of the teacher, V vocabulary.

Students that are to be compared are trained together: every one sees the same batches in the same order, takes the same
number of steps, and the teacher's forward pass is paid once for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spaces.extraction import fit_linear
from trainers.corpus import PackedCorpus
from trainers.losses import embedding_cosine, masked_mse, masked_variance, prediction_divergence
from trainers.masking import Masking
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.precision import Precision, autocast
from trainers.students import load_student
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
class DistillationSettings:
    """How students are distilled; a weight of 0 switches a loss off.

    Attributes:
        batch_size: sequences of a step, all workers together.
        seed: of data order, dropout and masking.
        precision: number format of forward passes.
        train_embeddings: whether the embeddings learn too.
        hidden_weight: on the error of the last hidden state, relative to its variance.
        intermediate_weight: on the mean relative error of the aligned intermediate states.
        embedding_weight: on 1 minus the cosine similarity of sentence embeddings.
        logits_weight: on the divergence of masked-LM predictions (equation 2), where the teacher has that head.
        mask_probability: share of tokens masked for a teacher with a masked-LM head.
        temperature: of the predictions' softmax.
        optimiser: learning rate, steps and regularisation.
    """

    batch_size: int
    seed: int
    precision: Precision
    train_embeddings: bool
    hidden_weight: float
    intermediate_weight: float
    embedding_weight: float
    logits_weight: float
    mask_probability: float
    temperature: float
    optimiser: OptimiserSettings


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
        models = [load_student(student.folder) for student in self.students]
        corpus = PackedCorpus(self.corpus_folder)
        return Distillation(self.students, models, teacher, corpus, self.settings, rank, world_size, device)


class Distillation(TrainingTask):
    """Distils students together.

    Args:
        students: what is distilled.
        models: their models, in the same order.
        teacher: gives the targets.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
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
        self.teacher.to(self.device)
        self.corpus = corpus
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        first_ids_BT, first_mask_BT = corpus.even_batches(1, settings.batch_size)[0]
        self.learners = [
            _Learner(student, model, teacher, first_ids_BT, first_mask_BT, settings).to(self.device).train()
            for student, model in zip(students, models, strict=True)
        ]
        self.optimisers = [make_optimiser(learner, settings.optimiser) for learner in self.learners]
        uses_logits = teacher.masked_lm_head is not None and settings.logits_weight > 0
        self._masking = Masking.of_tokenizer(teacher.tokenizer, settings.mask_probability) if uses_logits else None
        self._layers = sorted({layer for student in students for _, layer in student.alignment})
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    def step(self, step: int) -> None:
        """Run the teacher once and update every student on it."""
        settings = self.settings
        input_ids_BT, mask_BT = self.corpus.step_rows(
            step, settings.batch_size, settings.seed, self.rank, self.world_size
        )
        noise = hash((settings.seed, step, self.rank))
        masked_BT = torch.zeros_like(input_ids_BT, dtype=torch.bool)
        if self._masking is not None:
            generator = torch.Generator().manual_seed(noise % 2**63)
            input_ids_BT, masked_BT = self._masking.apply(input_ids_BT, mask_BT, generator)
        input_ids_BT, mask_BT, masked_BT = (t.to(self.device) for t in (input_ids_BT, mask_BT, masked_BT))
        layers = [*self._layers, self.teacher.shape.num_layers]
        with autocast(settings.precision, self.device):
            states = [state.float() for state in self.teacher.states(input_ids_BT, mask_BT, layers)]
        targets = _Targets(dict(zip(layers, states, strict=True)), states[-1], mask_BT, masked_BT)
        for student, learner, optimiser in zip(self.students, self.learners, self.optimisers, strict=True):
            torch.manual_seed(noise)  # the same dropout for a student, whoever is distilled beside it
            with autocast(settings.precision, self.device):
                outputs = learner(input_ids_BT, mask_BT)
            loss, relative_mse = self._loss(outputs, targets)
            loss.backward()
            apply_step(optimiser, settings.optimiser, step, [learner])
            self._meter.add((student.label, "loss"), loss.item())
            self._meter.add((student.label, "relative_mse"), relative_mse.item())
        self._tokens += int(mask_BT.sum()) * self.world_size

    def _loss(self, outputs: _Outputs, targets: _Targets) -> tuple[Tensor, Tensor]:
        settings, mask_BT = self.settings, targets.mask_BT

        def relative(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
            return masked_mse(student_BTD, teacher_BTD, mask_BT) / masked_variance(teacher_BTD, mask_BT)

        relative_mse = relative(outputs.last_BTD, targets.last_BTD)
        loss = settings.hidden_weight * relative_mse
        if settings.intermediate_weight > 0 and outputs.aligned:
            errors = [relative(state_BTD, targets.by_layer[layer]) for layer, state_BTD in outputs.aligned]
            loss = loss + settings.intermediate_weight * torch.stack(errors).mean()
        if settings.embedding_weight > 0:
            cosine_B = embedding_cosine(outputs.last_BTD, targets.last_BTD, mask_BT)
            loss = loss + settings.embedding_weight * (1 - cosine_B.mean())
        head = self.teacher.masked_lm_head
        if self._masking is not None and head is not None and bool(targets.masked_BT.any()):
            with torch.no_grad():
                teacher_logits = head(targets.last_BTD[targets.masked_BT])
            student_logits = head(outputs.last_BTD[targets.masked_BT])
            divergence = prediction_divergence(student_logits, teacher_logits, settings.temperature)
            loss = loss + settings.logits_weight * divergence
        return loss, relative_mse.detach()

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
                "loss": means[student.label, "loss"],
                "relative_mse": means[student.label, "relative_mse"],
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
            for name, tensor in learner.state_dict().items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights of all students."""
        for student, learner in zip(self.students, self.learners, strict=True):
            learner.load_state_dict(student_tensors(tensors, student.label))

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


@dataclass(frozen=True)
class _Targets:
    """What the teacher says of a batch."""

    by_layer: dict[int, Tensor]
    last_BTD: Tensor
    mask_BT: Tensor
    masked_BT: Tensor


@dataclass(frozen=True)
class _Outputs:
    """What a student says of a batch, mapped to the teacher's width."""

    last_BTD: Tensor
    aligned: list[tuple[int, Tensor]]


class _Learner(nn.Module):
    """A student's model with the linear maps that bring its states to the teacher's width, where they differ.

    The maps serve training only. They start as the least-squares fit on one batch.
    """

    def __init__(
        self,
        student: Student,
        model: nn.Module,
        teacher: Teacher,
        input_ids_BT: Tensor,
        mask_BT: Tensor,
        settings: DistillationSettings,
    ) -> None:
        super().__init__()
        self.model = model
        self.alignment = student.alignment if settings.intermediate_weight > 0 else ()
        if not settings.train_embeddings:
            model.embeddings.requires_grad_(False)
        self.probes = nn.ModuleDict()
        last = -1
        pairs = [*self.alignment, (last, teacher.shape.num_layers)]
        with torch.no_grad():
            hidden = model(input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=True).hidden_states
            targets = teacher.states(input_ids_BT, mask_BT, [layer for _, layer in pairs])
            visible_BT = mask_BT.to(torch.bool)
            for (index, _), target_BTD in zip(pairs, targets, strict=True):
                if hidden[index].shape[-1] != target_BTD.shape[-1]:
                    probe = nn.Linear(hidden[index].shape[-1], target_BTD.shape[-1])
                    fit_linear(probe, hidden[index][visible_BT], target_BTD[visible_BT])
                    self.probes[self._name(index)] = probe

    @staticmethod
    def _name(index: int) -> str:
        return "last" if index == -1 else str(index)

    def _probe(self, index: int, state_BTH: Tensor) -> Tensor:
        name = self._name(index)
        probed: Tensor = self.probes[name](state_BTH) if name in self.probes else state_BTH
        return probed.float()

    def forward(self, input_ids_BT: Tensor, mask_BT: Tensor) -> _Outputs:
        """Encode a batch; all states come back in the teacher's width, float32."""
        output = self.model(input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=True)
        aligned = [(layer, self._probe(index, output.hidden_states[index])) for index, layer in self.alignment]
        return _Outputs(self._probe(-1, output.last_hidden_state), aligned)
