"""Judging a candidate of a search by a short training of it (EfficientBERT, stages 1 and 2).

Shape legend: B batch, T tokens, D hidden size of the teacher.

A candidate starts from the weights that it inherits, is distilled layer by layer on text for some steps, and then,
where a task is named, tuned on a slice of the task's training split with a tuned teacher beside it. It is judged by its
best score on another slice of that split; without a task, by the error of its last state on held-out text.

What becomes of a candidate depends on its architecture and the seed alone. Candidates may be distilled in company,
which shares the teacher's passes and changes nothing (:mod:`trainers.distillation`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cluster.errors import type_and_text
from spaces.architecture import Architecture
from spaces.space import SearchSpace
from spaces.supernet import Supernet
from trainers.corpus import PackedCorpus
from trainers.distillation import Distillation, Student
from trainers.distillation_settings import DistillationSettings
from trainers.fidelity import Judgement, measure_fidelity
from trainers.layer_losses import Padding, Scale
from trainers.layer_recording import run_layers
from trainers.learners import Learner
from trainers.optimisation import OptimiserSettings
from trainers.precision import Precision, autocast
from trainers.students import encoder_of
from trainers.task import run_locally
from trainers.tasks.batching import Encoded
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuning, FineTuningSettings, load_tuned_teacher
from trainers.tasks.judging import DevSet, predict
from trainers.tasks.models import with_head
from trainers.tasks.slices import TrainSlices, read_slices
from trainers.tasks.sources import TaskSource
from trainers.teacher import Teacher


@dataclass(frozen=True)
class CandidateSettings:
    """How long and how candidates are trained; the same for all of a search.

    Attributes:
        warm_up_steps: optimiser steps of the distillation on text at full fidelity; 0 for none.
        batch_size: sequences of such a step.
        learning_rate: at the peak.
        warmup_share: share of the steps in which the learning rate rises.
        weight_decay: decoupled, on matrices only.
        gradient_clip: largest norm of the gradient; 0 for no limit.
        seed: of data order, dropout, and whatever starts at random.
        precision: number format of forward passes.
        padding: what padding counts for in the losses.
        scale: what they are measured in.
        start: ``inherited``: the supernet's weights, cropped; ``scratch``: random ones, to compare with.
        fidelities: F; a candidate at fidelity f takes f / F of the steps (rounded up), on a schedule of its own.
        company: candidates that are distilled together at most; bounds the memory, changes no result.
        tuning: how candidates are tuned on the task; unused without one.
    """

    warm_up_steps: int
    batch_size: int
    learning_rate: float = 1e-4
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    seed: int = 42
    precision: Precision = "auto"
    padding: Padding = "counted"
    scale: Scale = "raw"
    start: Literal["inherited", "scratch"] = "inherited"
    fidelities: int = 1
    company: int = 4
    tuning: FineTuningSettings | None = None

    def steps_at(self, steps: int, fidelity: int) -> int:
        """What a fidelity leaves of a number of steps."""
        return -(-steps * min(max(fidelity, 1), self.fidelities) // self.fidelities)

    def distillation(self, fidelity: int) -> DistillationSettings:
        """The warm-up at a fidelity."""
        steps = self.steps_at(self.warm_up_steps, fidelity)
        warmup = round(self.warmup_share * steps)
        return DistillationSettings(
            batch_size=self.batch_size,
            seed=self.seed,
            precision=self.precision,
            optimiser=OptimiserSettings(self.learning_rate, warmup, steps, self.weight_decay, self.gradient_clip),
            objective="layer_states",
            layer_padding=self.padding,
            layer_scale=self.scale,
        )


@dataclass(frozen=True)
class CandidateTask:
    """The task that candidates are tuned and judged on, read and encoded.

    Attributes:
        task: a classification or regression.
        tokenizer: the teacher's.
        training: what is trained on.
        held_out: what is judged on.
        soft: the tuned teacher's logits for each training example; ``None`` without it.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    training: Encoded
    held_out: DevSet
    soft: Sequence[NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class CandidateTaskSource:
    """Where the task of candidates comes from; picklable.

    Attributes:
        task: a classification or regression.
        source: where its data is.
        slices: of its training split.
        teacher: folder of a teacher that was tuned on the task; ``None``: candidates learn the labels alone.
    """

    task: Task
    source: TaskSource
    slices: TrainSlices = field(default_factory=TrainSlices)
    teacher: str | None = None

    def load(self, teacher: Teacher, settings: FineTuningSettings, device: torch.device) -> CandidateTask:
        """Read and encode the slices, and ask the tuned teacher for all it has to say.

        Args:
            teacher: whose tokenizer and longest input candidates have.
            settings: how candidates are tuned.
            device: where the tuned teacher computes.

        Raises:
            TrainingInputError: the data or the tuned teacher do not fit.
        """
        lengths = settings.lengths_for(teacher.model.config, teacher.tokenizer)
        training, held_out = read_slices(self.task, self.source, teacher.tokenizer, lengths, self.slices)
        soft = None
        if self.teacher is not None and settings.distillation_weight > 0:
            tuned = load_tuned_teacher(self.teacher, self.task, training, teacher.tokenizer, device)
            soft = predict(tuned, self.task, training, settings.precision)
        return CandidateTask(self.task, teacher.tokenizer, training, held_out, soft)

    def load_guide(
        self, task: CandidateTask, settings: FineTuningSettings, device: torch.device
    ) -> PreTrainedModel | None:
        """The tuned teacher itself, where its layers are imitated."""
        if self.teacher is None or settings.layer_weight == 0:
            return None
        return load_tuned_teacher(self.teacher, self.task, task.training, task.tokenizer, device)


@dataclass(frozen=True)
class CandidateResult:
    """What became of a candidate.

    Attributes:
        loss: what it is ranked by, less is better: 1 minus the task's headline metric or, without a task, the relative
            error of the last state; ``None`` where the training failed.
        steps: optimiser steps it took.
        seconds: its share of the time.
        error: why it failed, in one line; empty if it did not.
    """

    loss: float | None
    steps: int
    seconds: float
    error: str = ""


class CandidateTraining:
    """Trains and judges candidates; lives in one process and keeps what they all need in memory.

    Args:
        space: of the candidates.
        supernet: whose weights they inherit, on the CPU; it is left as it is.
        teacher: imitated on text.
        corpus: training text.
        judgement: held-out text with the teacher's answers, on ``device``.
        settings: how to train.
        task: to tune and judge on; ``None``: candidates are judged by the held-out text.
        guide: the tuned teacher, on ``device``, where its layers are imitated.
        device: where to train.
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        supernet: Supernet[Any],
        teacher: Teacher,
        corpus: PackedCorpus,
        judgement: Judgement,
        settings: CandidateSettings,
        task: CandidateTask | None = None,
        guide: PreTrainedModel | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.space, self.supernet = space, supernet
        self.teacher, self.corpus, self.judgement = teacher, corpus, judgement
        self.settings, self.task, self.guide = settings, task, guide
        self.device = device or torch.device("cpu")
        self._glance = corpus.even_batches(1, 1)[0]

    def train(self, architectures: Sequence[Architecture], fidelity: int) -> list[CandidateResult]:
        """Train and judge candidates.

        Args:
            architectures: of the space.
            fidelity: from 1 to the settings' ``fidelities``.

        Returns:
            One result for each, in order. A candidate that cannot be built or run, or whose numbers run away, fails
            with the reason.

        Raises:
            MemoryError, torch.OutOfMemoryError: there is no room for them together, or for one of them alone.
        """
        results: list[CandidateResult] = []
        for start in range(0, len(architectures), self.settings.company):
            results += self._train_together(architectures[start : start + self.settings.company], fidelity)
        return results

    def _train_together(self, architectures: Sequence[Architecture], fidelity: int) -> list[CandidateResult]:
        started = time.perf_counter()
        results: dict[int, CandidateResult] = {}
        models: dict[int, PreTrainedModel] = {}
        for place, architecture in enumerate(architectures):
            built = self._start(architecture)
            if isinstance(built, str):
                results[place] = CandidateResult(None, 0, 0.0, built)
            else:
                models[place] = built
        if models:
            learners, losses, steps = self._warm_up(models, architectures, fidelity)
            share = (time.perf_counter() - started) / len(models)
            for place, learner in learners.items():
                if not math.isfinite(losses[place]):
                    error = f"the loss of its warm-up became {losses[place]}"
                    results[place] = CandidateResult(None, steps, share, error)
                    continue
                results[place] = self._judge(learner, fidelity, steps, share)
        return [results[place] for place in range(len(architectures))]

    def _start(self, architecture: Architecture) -> PreTrainedModel | str:
        """A candidate before its training, or why there is none; one sequence tells whether it can run."""
        torch.manual_seed(self.settings.seed)
        inherited = self.settings.start == "inherited"
        try:
            model: Any = self.supernet.extract(architecture) if inherited else self.space.build(architecture)
            model.requires_grad_(True).eval()
            with torch.no_grad():
                last_BTD = run_layers(model, *self._glance).hidden_BTD[-1]
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            return type_and_text(error)
        if not bool(torch.isfinite(last_BTD).all()):
            return "its states are not finite before any training"
        found: PreTrainedModel = model
        return found

    def _warm_up(
        self, models: Mapping[int, PreTrainedModel], architectures: Sequence[Architecture], fidelity: int
    ) -> tuple[dict[int, Learner], dict[int, float], int]:
        """Distil candidates together; returns them, their mean losses, and the steps each took."""
        places = list(models)
        students = [Student(str(place), architectures[place].arch_id, Path(), ()) for place in places]
        self.teacher.to(torch.device("cpu"))  # where learners are fitted to it
        training = Distillation(
            students,
            [models[place] for place in places],
            self.teacher,
            self.corpus,
            self.settings.distillation(fidelity),
            device=self.device,
        )
        rows = run_locally(training, report_every=max(1, training.total_steps))
        losses = {int(row["subject"]): float(row["loss"]) for row in rows} or dict.fromkeys(places, 0.0)
        return dict(zip(places, training.learners, strict=True)), losses, training.total_steps

    def _judge(self, learner: Learner, fidelity: int, steps: int, seconds: float) -> CandidateResult:
        started = time.perf_counter()
        if self.task is None:
            loss, error = self._relative_error(learner), ""
        else:
            loss, more, error = self._tune(self.task, learner, fidelity)
            steps += more
        seconds += time.perf_counter() - started
        if not error and not math.isfinite(loss):
            error = f"its loss is {loss}"
        return CandidateResult(None if error else loss, steps, seconds, error)

    def _relative_error(self, learner: Learner) -> float:
        """Of the last state on held-out text."""
        learner.eval()

        def encode(input_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
            with autocast(self.settings.precision, self.device):
                last_BTD = learner(input_ids_BT, mask_BT).last_BTD
            assert isinstance(last_BTD, Tensor)
            return last_BTD

        return measure_fidelity(encode, self.judgement).relative_mse

    def _tune(self, task: CandidateTask, learner: Learner, fidelity: int) -> tuple[float, int, str]:
        """Tune on the task; returns 1 minus the best score, the steps, and what went wrong."""
        settings = self.settings.tuning
        assert settings is not None, "a task comes with settings"
        per_epoch = -(-len(task.training) // settings.batch_size)
        steps = self.settings.steps_at(settings.epochs * per_epoch, fidelity)
        torch.manual_seed(self.settings.seed)  # of the head
        tuning = FineTuning(
            with_head(encoder_of(learner.model), task.task, settings.pooling, settings.dropout),
            task.tokenizer,
            task.task,
            task.training,
            [task.held_out],
            replace(settings, keep="best", max_steps=steps),
            seed=self.settings.seed,
            soft=task.soft,
            guide=self.guide,
            device=self.device,
        )
        rows = run_locally(tuning, report_every=steps)
        if not math.isfinite(rows[-1]["loss"]):
            return math.nan, steps, f"the loss of its tuning became {rows[-1]['loss']}"
        return 1.0 - float(tuning.best_score), steps, ""
