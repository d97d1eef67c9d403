"""Scores architectures by a short training of each, from a trained supernet's weights.

Shape legend: B batch, T tokens, D hidden size of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from orchestrator.evaluation.device import ready_device
from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
from trainers.candidate_training import CandidateSettings, CandidateTask, CandidateTaskSource, CandidateTraining
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.fidelity import Judgement
from trainers.supernet_store import load_weights, supernet_with
from trainers.teacher import TeacherSource
from trainers.validation import SEARCH_SHARE


@dataclass(frozen=True)
class TrainingEvaluatorFactory:
    """Makes a :class:`TrainingEvaluator` from folders; picklable, called once in each process.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus of training text.
        validation_folder: a packed corpus of validation text.
        weights: of the supernet that candidates start from.
        space_name: of its space.
        space_options: the recipe's options of the space.
        settings: how candidates are trained.
        batches: validation batches that candidates are judged on where there is no task.
        batch_size: sequences of a validation batch.
        task: to tune and judge candidates on; ``None``: they are judged by the validation text.
        device: where to train.
        threads: for a processor; 0 leaves PyTorch's setting.
    """

    teacher_folder: Path
    corpus_folder: Path
    validation_folder: Path
    weights: Path
    space_name: str
    space_options: Mapping[str, Any]
    settings: CandidateSettings
    batches: int
    batch_size: int
    task: CandidateTaskSource | None = None
    device: str = "cpu"
    threads: int = 0

    def __call__(self) -> TrainingEvaluator:
        """Load everything into this process and make the evaluator of it; errors as in :meth:`load`."""
        return self.make(self.load())

    def load(self) -> TrainingMaterial:
        """What all evaluators of these settings have in common, read and computed once; its tensors are on the CPU.

        Raises:
            TrainingInputError: the task's data, or its tuned teacher, does not fit.
        """
        device = ready_device(self.device, self.threads)
        teacher = TeacherSource(str(self.teacher_folder)).load()
        teacher.to(device)
        batches: list[tuple[Tensor, Tensor, Tensor]] = []
        task = None
        if self.task is None:
            corpus = PackedCorpus(self.validation_folder)
            last = [teacher.shape.num_layers]
            for input_ids_BT, mask_BT in corpus.even_batches(self.batches, self.batch_size, SEARCH_SHARE):
                (state_BTD,) = teacher.states(input_ids_BT.to(device), mask_BT.to(device), last)
                batches.append((input_ids_BT, mask_BT, state_BTD.to("cpu")))
        else:
            if self.settings.tuning is None:
                raise TrainingInputError(
                    f"task '{self.task.task.name}': found no settings to tune candidates with, expected them beside it"
                )
            task = self.task.load(teacher, self.settings.tuning, device)
        return TrainingMaterial(teacher.shape, load_weights(self.weights), Judgement(tuple(batches)), task)

    def make(self, material: TrainingMaterial) -> TrainingEvaluator:
        """The evaluator of this process, with a teacher of its own; the material stays as it is."""
        device = ready_device(self.device, self.threads)
        space = load_space(self.space_name, self.space_options, material.shape)
        guide = None
        if self.task is not None and material.task is not None and self.settings.tuning is not None:
            guide = self.task.load_guide(material.task, self.settings.tuning, device)
        batches = tuple(
            (ids.to(device), mask.to(device), state.to(device)) for ids, mask, state in material.judgement.batches
        )
        training = CandidateTraining(
            space,
            supernet_with(space, material.weights),
            TeacherSource(str(self.teacher_folder)).load(),
            PackedCorpus(self.corpus_folder),
            Judgement(batches),
            self.settings,
            material.task,
            guide,
            device,
        )
        return TrainingEvaluator(training)


@dataclass(frozen=True)
class TrainingMaterial:
    """What evaluators are made of; nobody changes it, so processes of one machine can share its memory.

    Attributes:
        shape: of the teacher.
        weights: of the supernet, by name.
        judgement: validation text with the teacher's answers; empty where a task judges.
        task: read and encoded, if there is one.
    """

    shape: EncoderShape
    weights: Mapping[str, Tensor]
    judgement: Judgement
    task: CandidateTask | None


class TrainingEvaluator:
    """Trains candidates and scores them by what became of them.

    Args:
        training: of candidates.
    """

    def __init__(self, training: CandidateTraining) -> None:
        self.training = training

    def score(self, architectures: Sequence[Architecture], fidelity: int) -> list[Score]:
        """Train candidates, and score them by 1 minus their accuracy on the task, or by the error of their last state.

        Args:
            architectures: of the space.
            fidelity: share of the training, in units of the settings' ``fidelities``.
        """
        return [
            Score.failed(result.error, result.seconds)
            if result.loss is None
            else Score("ok", result.loss, result.seconds)
            for result in self.training.train(architectures, fidelity)
        ]
