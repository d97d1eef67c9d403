"""Trials: architectures are distilled together for a short while and judged, before anything is believed of them.

What a supernet says of an architecture is a guess at what becomes of it. Two stages check the guess: the selection
distils its finalists, the rank fidelity a sample of all sizes. Both come here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.distillation import DistillationSettings
from orchestrator.recipe.selection import Measure, SettledMeasure
from orchestrator.recipe.signatures import signature
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.distillation import trainers_settings
from orchestrator.stages.judge import Judge
from orchestrator.stages.prediction import PredictionJudge
from orchestrator.stages.training import estimated_seconds, remove_checkpoints, teacher_flops, train
from orchestrator.stages.workshop import Workshop
from spaces.architecture import Architecture
from trainers.distillation import DistillationFactory, finished_student
from trainers.students import encoder_of, has_masked_lm_head
from trainers.task import WEIGHTS

_RESULTS = "results.json"


@dataclass(frozen=True)
class TrialSettings:
    """How architectures are tried.

    Attributes:
        steps: optimiser steps of each.
        group: students that are distilled together; bounds the memory, changes no result.
        share: rows of the held-out text they are judged on.
    """

    steps: int
    group: int
    share: tuple[int, int]


@dataclass(frozen=True)
class TrialResult:
    """What came of one architecture, on held-out text.

    Attributes:
        relative_mse: squared error of the token states divided by the variance of the teacher's.
        cosine_similarity: mean cosine of the sentence embeddings to the teacher's.
        masked_lm_loss: cross entropy of masked tokens in nats; ``None`` where students predict none.
    """

    relative_mse: float
    cosine_similarity: float
    masked_lm_loss: float | None = None

    def error(self, measure: SettledMeasure) -> float:
        """The result as an error: less is better, whatever the measure."""
        if measure == "cosine_similarity":
            return 1.0 - self.cosine_similarity
        value = self.relative_mse if measure == "relative_mse" else self.masked_lm_loss
        assert value is not None, "settle_measure has seen to it"
        return value

    def columns(self, steps: int, measure: SettledMeasure, place: int) -> dict[str, Any]:
        """The columns of ``selections`` that a trial fills."""
        return {
            "trial_steps": steps,
            "trial_relative_mse": self.relative_mse,
            "trial_cosine_similarity": self.cosine_similarity,
            "trial_masked_lm_loss": self.masked_lm_loss,
            "trial_measure": measure,
            "trial_rank": place,
        }


def settle_measure(measure: Measure, results: Collection[TrialResult], key: str) -> SettledMeasure:
    """What trials are ranked by; ``auto`` is the masked-LM loss where students learn to predict tokens.

    Raises:
        UserError: they do not, but the recipe's ``key`` asks for that.
    """
    predicted = all(result.masked_lm_loss is not None for result in results)
    if measure == "auto":
        return "masked_lm_loss" if predicted else "relative_mse"
    if measure == "masked_lm_loss" and not predicted:
        raise UserError(
            f"{key}: found masked_lm_loss, but the students of this run have no masked-LM head; use auto, relative_mse "
            f"or cosine_similarity"
        )
    return measure


class Trials:
    """Distils architectures as the recipe's ``distillation`` says, for fewer steps, and judges them.

    Goes on where an interrupted start was: architectures that were judged are not distilled again, a group under way
    goes on from its checkpoint.

    Args:
        context: of the stage.
        stage: its name; the rows of the table ``training`` name it.
        settings: how to try.
    """

    def __init__(self, context: RunContext, stage: str, settings: TrialSettings) -> None:
        self.context = context
        self.stage = stage
        self.settings = settings
        self.training = short_training(context.recipe.distillation, settings.steps)
        self.folder = trials_folder(context, stage)

    def run(self, architectures: Sequence[Architecture], progress: StageProgress) -> dict[str, TrialResult]:
        """Try them all.

        Args:
            architectures: of the run's space.
            progress: of the stage; counts the steps of each group.

        Returns:
            What came of each, by ``arch_id``.
        """
        distinct = {architecture.arch_id: architecture for architecture in architectures}
        judged = {arch_id: result for arch_id, result in self._judged().items() if arch_id in distinct}
        waiting = [architecture for arch_id, architecture in distinct.items() if arch_id not in judged]
        if not waiting:
            return judged
        workshop = Workshop(self.context)
        judge = Judge(self.context, workshop.teacher, self.settings.share)
        predictions = PredictionJudge(self.context, judge, workshop.teacher)
        groups = [waiting[at : at + self.settings.group] for at in range(0, len(waiting), self.settings.group)]
        for number, group in enumerate(groups, start=1):
            if len(groups) > 1:
                progress.message(f"trials: group {number} of {len(groups)}, {len(group)} students")
            judged |= self._try(group, workshop, judge, predictions, progress)
            write_atomically(self.folder / _RESULTS, json.dumps({key: asdict(one) for key, one in judged.items()}))
        return judged

    def _try(
        self,
        group: Sequence[Architecture],
        workshop: Workshop,
        judge: Judge,
        predictions: PredictionJudge,
        progress: StageProgress,
    ) -> dict[str, TrialResult]:
        """Distil a group together and judge its students; only the results are kept."""
        start = self.context.recipe.distillation.initialisation
        students = []
        for architecture in group:
            model = workshop.build(architecture, start)
            folder = self.folder / architecture.arch_id
            students.append(workshop.student(architecture.arch_id, architecture, model, folder))
        factory = DistillationFactory(
            teacher_folder=self.context.folder.teacher,
            corpus_folder=self.context.folder.corpus,
            students=tuple(students),
            settings=trainers_settings(self.training, self.context.recipe.seed),
        )
        # A group that was put together otherwise has other checkpoints.
        name = f"{self.stage}-{signature([student.label for student in students])}"
        checkpoint = train(self.context, name, self.training, factory, progress, recorded_as=self.stage)
        tensors = load_file(checkpoint / WEIGHTS)
        judged = {}
        for student in students:
            model = finished_student(student.folder, tensors, student.label)
            fidelity = judge.fidelity(encoder_of(model).eval())
            loss = predictions.of_model(model.eval()).loss if has_masked_lm_head(student.folder) else None
            judged[student.label] = TrialResult(fidelity.relative_mse, fidelity.cosine_similarity, loss)
            shutil.rmtree(student.folder, ignore_errors=True)
        remove_checkpoints(self.context, name)
        return judged

    def _judged(self) -> dict[str, TrialResult]:
        """What an interrupted start has judged already."""
        file = self.folder / _RESULTS
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
        return {arch_id: TrialResult(**values) for arch_id, values in found.items()}


def planned_trials(plan: RunPlan, stage: str, work: str, students: int, steps: int, group: int) -> PlannedStage:
    """The plan of a stage that tries architectures: steps and tokens are exact, time is a rough estimate.

    Args:
        plan: of the run.
        stage: its name.
        work: in words.
        students: architectures that are tried.
        steps: optimiser steps of each.
        group: students that are distilled together.
    """
    recipe, shape = plan.recipe, plan.shape
    training, length = short_training(recipe.distillation, steps), recipe.corpus.sequence_length
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    groups = -(-students // group)
    # A student is taken to have half of the teacher's weights, and a step to cost three forward passes.
    seconds = groups * estimated_seconds(training, flops) + estimated_seconds(training, flops * 1.5 * students)
    return PlannedStage(
        stage,
        "run",
        work,
        steps=groups * steps,
        tokens=groups * steps * training.batch_size * length,
        seconds=seconds,
    )


def trials_folder(context: RunContext, stage: str) -> Path:
    """Where a stage's trials keep what an interruption must not lose."""
    return context.folder.training / f"{stage}-{context.signature}"


def remove_trials(context: RunContext, stage: str) -> None:
    """Free the disk of finished trials: their results are in the tables."""
    shutil.rmtree(trials_folder(context, stage), ignore_errors=True)


def short_training(settings: DistillationSettings, steps: int) -> DistillationSettings:
    """The recipe's distillation in ``steps`` optimiser steps: the same but for warm-up and intervals, cut to fit."""
    return settings.model_copy(
        update={
            "steps": steps,
            "warmup_steps": min(settings.warmup_steps, steps // 10),
            "checkpoint_every": min(settings.checkpoint_every, steps),
            "report_every": min(settings.report_every, steps),
        }
    )


def trial_ranks(results: Mapping[str, TrialResult], measure: SettledMeasure) -> dict[str, int]:
    """Places by a measure, the most faithful first, by ``arch_id``; equals in the order of their ids."""
    ranked = sorted(results, key=lambda arch_id: (results[arch_id].error(measure), arch_id))
    return {arch_id: place for place, arch_id in enumerate(ranked, start=1)}
