"""Fine-tuning one model on one task, with or without a teacher that was tuned on it.

Shape legend: B batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.errors import TrainingInputError
from trainers.layer_losses import Padding, Scale
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser, seed_dropout
from trainers.precision import Precision, autocast
from trainers.task import Row, TrainingTask
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.batching import Encoded, GroupedBatches, labels_of
from trainers.tasks.catalogue import Task
from trainers.tasks.features import complete_task
from trainers.tasks.judging import DevSet, Lengths, judge, predict, read_dev_sets, read_training_set
from trainers.tasks.layer_guide import LayerGuide
from trainers.tasks.losses import Imitation, fine_tuning_loss
from trainers.tasks.models import Pooling, load_for_task, load_tokenizer, longest_input, task_logits
from trainers.tasks.sources import TaskSource


@dataclass(frozen=True)
class FineTuningSettings:
    """How a model is tuned; the same for every model of a comparison.

    The optimiser follows NAS-BERT's published port (section 4 of its paper leaves fine-tuning open): peak learning
    rate 1e-4, batches of 32, warm-up over 6 % of the steps, linear decay, clipping at 25. The port runs 10 epochs.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples of a step, all workers together.
        learning_rate: at the peak.
        warmup_share: share of the steps in which the learning rate rises.
        weight_decay: decoupled, on matrices only.
        gradient_clip: largest norm of the gradient; 0 for no limit.
        max_length: tokens of a sentence (or pair) that are kept.
        answers: windows of question answering.
        dropout: probability everywhere in the model; ``None``: each model's own.
        pooling: what a sequence's class is read from.
        keep: ``last``: the weights after the last epoch; ``best``: those of the epoch with the best dev score, which
            flatters every score on the same split.
        max_train_examples: training rows at most, the same for every model and seed; ``None``: all.
        max_eval_examples: rows of a dev split at most; ``None``: all.
        distillation_weight: lambda of the teacher's share in the loss.
        imitation: how the teacher's predictions are imitated.
        layer_weight: of the comparison with the tuned teacher layer by layer (:mod:`trainers.layer_losses`), which is
            added to the loss; 0 for none.
        layer_padding: what padding counts for in it.
        layer_scale: what its errors are measured in.
        max_steps: optimiser steps at most, whatever the epochs; ``None``: no limit.
        precision: number format of forward passes.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    gradient_clip: float = 25.0
    max_length: int = 128
    answers: AnswerSettings = field(default_factory=AnswerSettings)
    dropout: float | None = 0.1
    pooling: Pooling = "first"
    keep: Literal["last", "best"] = "last"
    max_train_examples: int | None = None
    max_eval_examples: int | None = None
    distillation_weight: float = 0.5
    imitation: Imitation = field(default_factory=Imitation)
    layer_weight: float = 0.0
    layer_padding: Padding = "counted"
    layer_scale: Scale = "raw"
    max_steps: int | None = None
    precision: Precision = "auto"

    @property
    def wants_teacher(self) -> bool:
        """Whether a teacher that was tuned on the task plays a part in the loss."""
        return self.distillation_weight > 0 or self.layer_weight > 0

    def lengths_for(self, config: Any, tokenizer: PreTrainedTokenizerBase) -> Lengths:
        """The lengths of inputs that a model can take."""
        window = longest_input(config, tokenizer, self.answers.max_length)
        answers = replace(self.answers, max_length=window, stride=min(self.answers.stride, window // 3))
        return Lengths(longest_input(config, tokenizer, self.max_length), answers)


@dataclass(frozen=True)
class FineTuningFactory:
    """Makes a worker's :class:`FineTuning` from folders; picklable.

    Attributes:
        model: folder or hub id of an encoder, or of a model tuned on another task.
        task: which; tags need not know their labels yet.
        source: where its data is.
        settings: how to tune.
        seed: of the head's start, dropout and the order of examples.
        teacher: folder of a model tuned on the task; ``None`` for none.
    """

    model: str
    task: Task
    source: TaskSource
    settings: FineTuningSettings
    seed: int
    teacher: str | None = None

    def __call__(self, rank: int = 0, world_size: int = 1, device: torch.device | None = None) -> FineTuning:
        """Load the model, read and encode the data, and ask the teacher once for everything it has to say."""
        settings = self.settings
        task = complete_task(self.task, self.source)
        tokenizer = load_tokenizer(self.model)
        torch.manual_seed(self.seed)
        answerability = settings.answers.answerability
        model = load_for_task(
            self.model, task, pooling=settings.pooling, dropout=settings.dropout, answerability=answerability
        )
        lengths = settings.lengths_for(model.config, tokenizer)
        training = read_training_set(task, self.source, tokenizer, lengths, settings.max_train_examples)
        dev_sets = read_dev_sets(task, self.source, tokenizer, lengths, settings.max_eval_examples)
        soft = guide = None
        if self.teacher is not None and settings.wants_teacher:
            tuned = load_tuned_teacher(self.teacher, task, training, tokenizer, device)
            if settings.distillation_weight > 0:
                soft = predict(tuned, task, training, settings.precision)
            if settings.layer_weight > 0:
                guide = tuned
        return FineTuning(
            model,
            tokenizer,
            task,
            training,
            dev_sets,
            settings,
            seed=self.seed,
            soft=soft,
            guide=guide,
            rank=rank,
            world_size=world_size,
            device=device,
        )


def load_tuned_teacher(
    teacher: str,
    task: Task,
    training: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load a teacher that was tuned on a task, in evaluation mode and without gradients.

    Its logits for every training example are computed once (:func:`~trainers.tasks.judging.predict`), so that an epoch
    costs no pass of it.

    Args:
        teacher: folder of a model with a head for the task.
        task: with its labels.
        training: the student's examples.
        tokenizer: the student's.
        device: where to compute.

    Raises:
        TrainingInputError: the teacher has no such head, or reads other tokens than the student.
    """
    if load_tokenizer(teacher).get_vocab() != tokenizer.get_vocab():
        raise TrainingInputError(
            f"teacher '{teacher}': its vocabulary is not the model's; task distillation needs a teacher with the same "
            f"tokenizer: name another, or do without one"
        )
    model: Any = load_for_task(teacher, task, keep_head=True)
    model.to(device or torch.device("cpu")).requires_grad_(False)
    longest = getattr(model.config, "max_position_embeddings", None) or 10**9
    if int(training.lengths.max()) > longest:
        raise TrainingInputError(
            f"teacher '{teacher}': takes at most {longest} tokens, but the model reads {int(training.lengths.max())}; "
            f"lower max_length"
        )
    found: PreTrainedModel = model
    return found


class FineTuning(TrainingTask):
    """Tunes a model with its head on a task.

    Args:
        model: with a head for the task.
        tokenizer: the model's.
        task: with its labels.
        training: examples.
        dev_sets: the splits to judge on; the first decides which epoch is best.
        settings: how to tune.
        seed: of dropout and the order of examples.
        soft: the teacher's logits for every example; ``None`` without a teacher.
        guide: the tuned teacher itself, whose layers are imitated where the settings give that a weight.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        training: Encoded,
        dev_sets: Sequence[DevSet],
        settings: FineTuningSettings,
        *,
        seed: int = 1,
        soft: Sequence[NDArray[np.float32]] | None = None,
        guide: PreTrainedModel | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = model.to(self.device).train()  # type: ignore[arg-type]
        self.tokenizer = tokenizer
        self.task = task
        self.training = training
        self.dev_sets = list(dev_sets)
        self.settings = settings
        self.seed = seed
        self.soft = soft
        self._guide = None
        if guide is not None and settings.layer_weight > 0:
            self._guide = LayerGuide(model, guide, settings.layer_padding, settings.layer_scale)
        self.rank, self.world_size = rank, world_size
        self.lengths = settings.lengths_for(model.config, tokenizer)
        self.batches = GroupedBatches(training.lengths, settings.batch_size, seed)
        steps = settings.epochs * self.batches.per_epoch
        self.total_steps = steps if settings.max_steps is None else min(steps, settings.max_steps)
        self.optimiser_settings = OptimiserSettings(
            settings.learning_rate,
            round(settings.warmup_share * self.total_steps),
            self.total_steps,
            settings.weight_decay,
            settings.gradient_clip,
        )
        self.optimiser = make_optimiser(model, self.optimiser_settings)
        self.best_score = -np.inf
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    def step(self, step: int) -> None:
        """Update the model on one batch; at the end of an epoch look whether it is the best, where that matters."""
        settings, task = self.settings, self.task
        rows = self.batches.rows(step, self.rank, self.world_size).tolist()
        inputs = self.training.inputs(rows, self.device)
        labels, soft = self._targets(rows)
        seed_dropout(self.seed, step, self.rank)
        layer_loss = None
        with autocast(settings.precision, self.device):
            if self._guide is None:
                logits = task_logits(self.model, task, inputs)
            else:
                logits, layer_loss = self._guide.run(task, inputs)
        mask_BT, weight = inputs["attention_mask"], settings.distillation_weight
        loss = fine_tuning_loss(task.kind, logits, labels, mask_BT, soft, weight, settings.imitation)
        if layer_loss is not None:
            loss = loss + settings.layer_weight * layer_loss
        loss.backward()
        apply_step(self.optimiser, self.optimiser_settings, step, [self.model])
        self._meter.add("loss", loss.item())
        self._tokens += int(inputs["attention_mask"].sum()) * self.world_size
        done = step + 1
        if settings.keep == "best" and (done % self.batches.per_epoch == 0 or done == self.total_steps):
            self._keep_if_best(-(-done // self.batches.per_epoch))

    def _targets(self, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        labels = labels_of(self.training, rows, self.task.kind)
        if self.soft is None:
            return labels.to(self.device), None
        parts = [torch.from_numpy(self.soft[row]) for row in rows]
        soft = torch.stack(parts) if parts[0].ndim == 1 else torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        return labels.to(self.device), soft.to(self.device)

    def judge(self, dev_set: DevSet) -> dict[str, float]:
        """The model's metrics on a split, as it is now."""
        return judge(self.model, self.task, dev_set, self.tokenizer, self.lengths, self.settings.precision)

    def _keep_if_best(self, epoch: int) -> None:
        score = self.judge(self.dev_sets[0])[self.task.headline]
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self._best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def finish(self) -> int:
        """Take the weights that the settings ask for; returns the number of the epoch they are from."""
        if self._best:
            self.model.load_state_dict(self._best)
        self.model.eval()
        return self.best_epoch if self._best else self.settings.epochs

    def rows(self, steps_done: int) -> list[Row]:
        """One row: means over the interval."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        return [
            {
                "stage": "finetuning",
                "subject": self.task.name,
                "step": steps_done,
                "loss": means["loss"],
                "learning_rate": self.optimiser_settings.learning_rate_at(steps_done - 1),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "workers": self.world_size,
            }
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights as they are and, where the best epoch is kept, those of the best so far."""
        now = {f"now/{name}": tensor for name, tensor in self.model.state_dict().items()}
        return now | {f"best/{name}": tensor for name, tensor in self._best.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over both."""
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}}
        for name, tensor in tensors.items():
            part, _, inner = name.partition("/")
            parts[part][inner] = tensor
        self.model.load_state_dict(parts["now"])
        self._best = parts["best"]

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments, the best score so far, the token count and the unfinished interval's sums."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "best": [float(self.best_score), self.best_epoch],
            "tokens": self._tokens,
            "meter": self._meter.state(),
        }

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_score, self.best_epoch = state["best"]
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])
