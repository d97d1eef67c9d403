"""Tuning a layer-wise supernet on several tasks at once, with weight sharing (EfficientBERT, stage 3).

Shape legend: B batch, T tokens, D hidden size of the teacher, C classes.

Each step takes a batch of one task and a network that the space draws, the same on all workers; the network and the
task's classifier learn what a teacher that was tuned on the task predicts, and what its layers say. So one set of
weights comes to serve every network on every task, and candidates can be judged without any training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spaces.layer_states import LayerStates, LayerwiseSupernet
from spaces.model_parts.task_heads import Pooling
from spaces.narrowing import Narrowing
from spaces.registry import load_space
from spaces.space import SearchSpace
from trainers.errors import TrainingInputError
from trainers.layer_losses import layer_losses
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser, seed_dropout
from trainers.precision import Precision, autocast
from trainers.students import encoder_of
from trainers.supernet_store import load_weights
from trainers.task import Row, TrainingTask, tensors_of
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.layer_guide import TunedTeacher
from trainers.tasks.mixing import MixedBatches
from trainers.tasks.models import load_config
from trainers.tasks.shared_heads import BERT_DROPOUT, Pooler, SharedHeads
from trainers.tasks.slices import TrainSlices
from trainers.tasks.sources import TaskSource
from trainers.tasks.taught_tasks import TaughtBatch, TaughtTask, read_taught_task, supernet_inputs
from trainers.teacher import TeacherSource, shape_of
from trainers.warm_up import drawn_architecture, layerwise, matching_layers_of

_SUPERNET, _HEADS = "supernet", "heads"


@dataclass(frozen=True)
class JointTuningSettings:
    """How a supernet is tuned on tasks.

    Attributes:
        batch_size: examples of a step, all workers together.
        seed: of the order of tasks and examples, drawn networks, dropout and the heads' start.
        precision: number format of forward passes.
        optimiser: learning rate, steps and regularisation.
        tuning: how texts are read, and what is learnt of labels and tuned teachers: lengths, pooling, dropout before
            the classifiers, most examples of a task, imitation, layers. Its schedule is not used.
        pooler: what comes before the classifiers.
    """

    batch_size: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings
    tuning: FineTuningSettings
    pooler: Pooler = "shared"

    @property
    def pooling(self) -> Pooling:
        """What a sequence's class is read from.

        Raises:
            TrainingInputError: each model's own head, which a supernet has not.
        """
        if self.tuning.pooling == "own":
            raise TrainingInputError(OWN_POOLING)
        return self.tuning.pooling


OWN_POOLING = (
    "finetuning.pooling: found own, expected first or mean, since a supernet that is tuned on tasks has no head of its "
    "own; name either"
)


@dataclass(frozen=True)
class JointTuningFactory:
    """Makes a worker's :class:`JointTuning` from folders; picklable.

    Attributes:
        teacher_folder: whose tokenizer and longest input the supernet has.
        weights: of the supernet to begin with.
        space_name: of a space whose supernet is layer-wise.
        space_options: the recipe's options of the space.
        tasks: classifications and regressions.
        source: where their data is.
        settings: how to tune.
        slices: which rows of the training splits.
        teachers: by the name of a task, the folder of a teacher that was tuned on it; other tasks learn labels alone.
        narrowing: of the space whose networks are drawn.
    """

    teacher_folder: Path
    weights: Path
    space_name: str
    space_options: Mapping[str, Any]
    tasks: tuple[Task, ...]
    source: TaskSource
    settings: JointTuningSettings
    slices: TrainSlices = field(default_factory=lambda: TrainSlices(0.9, 0.1))
    teachers: Mapping[str, str] = field(default_factory=dict)
    narrowing: Narrowing = field(default_factory=Narrowing)

    def __call__(self, rank: int, world_size: int, device: torch.device) -> JointTuning:
        """Load supernet, data and tuned teachers, and set the heads' start.

        Raises:
            TrainingInputError: the supernet is not layer-wise, or data or teachers do not fit.
        """
        source, settings = TeacherSource(str(self.teacher_folder)), self.settings
        space = self.narrowing.of(load_space(self.space_name, self.space_options, source.shape()))
        supernet = layerwise(space.supernet(), self.space_name)
        supernet.load_state_dict(load_weights(self.weights))
        tokenizer = source.tokenizer()
        lengths = settings.tuning.lengths_for(load_config(str(self.teacher_folder)), tokenizer)
        most = settings.tuning.max_train_examples
        tasks = []
        for task in self.tasks:
            teacher = self.teachers.get(task.name) if settings.tuning.wants_teacher else None
            tasks.append(read_taught_task(task, self.source, tokenizer, lengths, self.slices, most, teacher, device))
        return JointTuning(supernet, space, tasks, settings, rank, world_size, device)


class JointTuning(TrainingTask):
    """Tunes a layer-wise supernet, and a head for each task, on all tasks.

    Args:
        supernet: at its start.
        space: it belongs to; draws the networks.
        tasks: read and encoded, in an order that stays.
        settings: how to tune.
        rank: number of this worker.
        world_size: workers.
        device: where to train.

    Attributes:
        heads: of the tasks.

    Raises:
        TrainingInputError: the supernet and a tuned teacher cannot be compared layer by layer.
    """

    def __init__(
        self,
        supernet: LayerwiseSupernet[Any],
        space: SearchSpace[Any],
        tasks: Sequence[TaughtTask],
        settings: JointTuningSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.supernet = supernet.to(self.device).train()
        self.space = space
        self.tasks = list(tasks)
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        glance = self._glance()
        tuning = settings.tuning
        torch.manual_seed(settings.seed)
        self.heads = SharedHeads(
            glance.embeddings_BTD.shape[-1],
            {one.task.name: one.task.num_outputs for one in self.tasks},
            settings.pooling,
            settings.pooler,
            BERT_DROPOUT if tuning.dropout is None else tuning.dropout,
        ).to(self.device)
        self._teachers = [self._asked(one, glance) for one in self.tasks]
        self.batches = MixedBatches([one.training for one in self.tasks], settings.batch_size, settings.seed)
        self._learner = nn.ModuleDict({_SUPERNET: self.supernet, _HEADS: self.heads})
        self._parameters = list(self._learner.parameters())
        self.optimiser = make_optimiser(self._learner, settings.optimiser)
        self._meter = IntervalMeter()
        self._tokens = {one.task.name: 0 for one in self.tasks}
        self._tokens_before = dict(self._tokens)

    @torch.no_grad()
    def _glance(self) -> LayerStates:
        """The states of one sequence, which tell the supernet's sizes."""
        inputs = self.tasks[0].training.inputs([0], self.device)
        return self.supernet.layer_states(self.supernet.largest(), *supernet_inputs(inputs))

    def _asked(self, one: TaughtTask, glance: LayerStates) -> TunedTeacher | None:
        if one.teacher is None:
            return None
        layers: tuple[int, ...] = ()
        if self.settings.tuning.layer_weight > 0:
            layers = matching_layers_of(glance, shape_of(encoder_of(one.teacher).config))
        return TunedTeacher(one.teacher, one.task, layers)

    def step(self, step: int) -> None:
        """Train one network on one batch of one task; all workers the same network and task, each on other rows.

        What the network does not use, and the other tasks' classifiers, get no gradient.
        """
        settings, tuning = self.settings, self.settings.tuning
        turn = self.batches.task(step)
        taught, teacher = self.tasks[turn], self._teachers[turn]
        rows = self.batches.rows(step, self.rank, self.world_size).tolist()
        batch, targets = TaughtBatch.of(taught, rows, self.device), None
        seed_dropout(settings.seed, step, self.rank)
        with autocast(settings.precision, self.device):
            if teacher is not None:
                soft_BC, targets = teacher.ask(batch.inputs)
                batch = batch.told(soft_BC)
            architecture = self.architecture_of(step)
            states = None
            if targets is None:
                last_BTD = self.supernet(architecture, *supernet_inputs(batch.inputs))
            else:
                states = self.supernet.layer_states(architecture, *supernet_inputs(batch.inputs))
                last_BTD = states.hidden_BTD[-1]
            logits_BC = self.heads(taught.task.name, last_BTD, batch.mask)
        loss = batch.loss(logits_BC, tuning)
        if states is not None and targets is not None:
            compared = layer_losses(states, targets, batch.mask, tuning.layer_padding, tuning.layer_scale)
            loss = loss + tuning.layer_weight * compared.total
        loss.backward()
        apply_step(self.optimiser, settings.optimiser, step, [self._parameters])
        self._meter.add(taught.task.name, loss)
        self._tokens[taught.task.name] += batch.tokens * self.world_size

    def architecture_of(self, step: int) -> Any:
        """The network that is trained in a step; depends on the seed and the step alone."""
        return drawn_architecture(self.space, self.settings.seed, step)

    def rows(self, steps_done: int) -> list[Row]:
        """One row a task that had a turn: means over the interval, and the tokens of its own batches."""
        means, seconds = self._meter.read()
        before, self._tokens_before = self._tokens_before, dict(self._tokens)
        return [
            {
                "stage": "tuning",
                "subject": name,
                "step": steps_done,
                "loss": means[name],
                "learning_rate": self.settings.optimiser.learning_rate_at(steps_done - 1),
                "tokens": tokens,
                "tokens_per_second": (tokens - before[name]) / seconds,
                "workers": self.world_size,
            }
            for name, tokens in self._tokens.items()
            if name in means
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights of supernet and heads; :func:`tuned_parts` tells them apart."""
        return self._learner.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over both."""
        self._learner.load_state_dict(tensors)

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments, the tokens of each task and the unfinished interval's sums."""
        return {"optimiser": self.optimiser.state_dict(), "tokens": dict(self._tokens), "meter": self._meter.state()}

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._tokens, self._tokens_before = dict(state["tokens"]), dict(state["tokens"])
        self._meter.load_state(state["meter"])


def tuned_parts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What :meth:`JointTuning.tensors` gave, as weights of the supernet and of the heads, each by its own names."""
    return tensors_of(_SUPERNET, tensors), tensors_of(_HEADS, tensors)
