"""Warm-up distillation of a layer-wise supernet: every layer learns to say what the teacher's says (EfficientBERT).

Shape legend: B batch, T tokens, D hidden size of the teacher.

One training serves two stages of the paper: the *plain* supernet, whose largest architecture is trained once and from
which every candidate starts, and the supernet with *sampled* paths, from which candidates are scored without training.
Which architectures may be drawn (a window of sizes, fixed expressions) is the space's business.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spaces.encoder_shape import EncoderShape
from spaces.layer_states import LayerStates, LayerwiseSupernet
from spaces.narrowing import Narrowing
from spaces.registry import load_space
from spaces.space import SearchSpace
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.layer_losses import Padding, Scale, check_heads, check_width, layer_losses, layer_map
from trainers.losses import masked_mse, masked_variance
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.precision import Precision, autocast
from trainers.supernet_store import load_supernet, load_weights
from trainers.task import Row, TrainingTask
from trainers.teacher import Teacher, TeacherSource

CALIBRATION_TOKENS = 8192
"""Length of the text, padding included, that a start at the teacher is fitted to."""

Drawing = Literal["largest", "sampled"]
"""Whose turn a step is: the plain architecture that touches all weights, or one that the space draws."""


@dataclass(frozen=True)
class WarmUpSettings:
    """How a layer-wise supernet is trained.

    Attributes:
        init: ``teacher`` or ``paper``; see :meth:`spaces.supernet.StartableSupernet.start`. Unused where a training
            begins with weights that are there already.
        batch_size: sequences of a step, all workers together.
        seed: of data order, drawn architectures, dropout and the random start.
        precision: number format of forward passes.
        optimiser: learning rate, steps and regularisation.
        sampling: whose turn a step is.
        padding: what padding counts for in the losses.
        scale: what they are measured in.
    """

    init: str
    batch_size: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings
    sampling: Drawing = "largest"
    padding: Padding = "counted"
    scale: Scale = "raw"


@dataclass(frozen=True)
class WarmUpFactory:
    """Makes a worker's :class:`WarmUp` from folders; picklable.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus.
        space_name: of a space whose supernet is layer-wise.
        space_options: the recipe's options of the space.
        settings: how to train.
        start: weights of a supernet to begin with, such as the plain one's; ``None``: the settings' ``init`` says
            where it starts.
        start_options: options of the space whose supernet that is, where it has other sizes: its weights are then
            cropped, and its blocks repeated (6 blocks of 540 give 6 or 12 of 360); ``None``: the same sizes.
        narrowing: of the space whose architectures are drawn.
    """

    teacher_folder: Path
    corpus_folder: Path
    space_name: str
    space_options: Mapping[str, Any]
    settings: WarmUpSettings
    start: Path | None = None
    start_options: Mapping[str, Any] | None = None
    narrowing: Narrowing = field(default_factory=Narrowing)

    def __call__(self, rank: int, world_size: int, device: torch.device) -> WarmUp:
        """Load teacher and corpus, build the supernet and set its start.

        Raises:
            TrainingInputError: the space's supernet is not layer-wise, or does not fit the teacher.
            SpaceError: it cannot start at this teacher.
        """
        teacher = TeacherSource(str(self.teacher_folder)).load()
        corpus = PackedCorpus(self.corpus_folder)
        space = self.narrowing.of(load_space(self.space_name, self.space_options, teacher.shape))
        torch.manual_seed(self.settings.seed)
        supernet = layerwise(space.supernet(), self.space_name)
        if self.start is None:
            space.check_start(self.settings.init)
            if rank == 0:
                with threads_of_all(world_size):
                    supernet.start(teacher.model, *calibration_text(corpus), init=self.settings.init)
            share_state(supernet, world_size, device)
        else:
            self._begin_with(supernet, self.start, teacher.shape)
        return WarmUp(supernet, space, teacher, corpus, self.settings, rank, world_size, device)

    def _begin_with(self, supernet: Any, weights: Path, shape: EncoderShape) -> None:
        if self.start_options is None:
            supernet.load_state_dict(load_weights(weights))
        elif hasattr(supernet, "inherit"):
            other = load_space(self.space_name, self.start_options, shape)
            supernet.inherit(load_supernet(other, weights))
        else:
            raise TrainingInputError(
                f"space.name: found '{self.space_name}', whose supernet cannot inherit from one of another size; begin "
                f"with weights of its own sizes"
            )


@contextmanager
def threads_of_all(world_size: int) -> Iterator[None]:
    """Work with the processor threads of all workers, as far as this machine has them: the others wait."""
    own = torch.get_num_threads()
    torch.set_num_threads(max(own, min(own * world_size, os.cpu_count() or 1)))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def share_state(module: nn.Module, world_size: int, device: torch.device) -> None:
    """Give all workers the weights that the first one has.

    Args:
        module: of this worker, on any device; its weights are overwritten.
        world_size: workers.
        device: of this worker, over which workers talk.
    """
    if world_size == 1 or not dist.is_initialized():
        return
    for tensor in module.state_dict().values():
        sent = tensor.to(device)
        dist.broadcast(sent, 0)
        tensor.copy_(sent)


def calibration_text(corpus: PackedCorpus) -> tuple[Tensor, Tensor]:
    """Text that a layer-wise supernet starts by: (input ids, attention mask), spread evenly over the corpus."""
    sequences = max(1, CALIBRATION_TOKENS // corpus.description.sequence_length)
    return corpus.even_batches(1, min(sequences, len(corpus)))[0]


def layerwise(supernet: Any, space_name: str) -> LayerwiseSupernet[Any]:
    """The supernet, if its layers can be compared with a teacher's.

    Raises:
        TrainingInputError: they cannot.
    """
    if not isinstance(supernet, LayerwiseSupernet):
        raise TrainingInputError(
            f"space.name: found '{space_name}', whose supernet does not say its layers' states, which its warm-up and "
            f"distillation.objective: layer_states compare; expected a space such as efficient_bert, or another way to "
            f"train"
        )
    return supernet


@torch.no_grad()
def check_layerwise(space: SearchSpace[Any], space_name: str, teacher: EncoderShape) -> tuple[int, ...]:
    """Make sure, without any weights, that a space's supernet and its students can learn from a teacher's layers.

    Args:
        space: made for the teacher.
        space_name: for errors.
        teacher: its shape.

    Returns:
        The teacher's layer, from 1, that each block learns from.

    Raises:
        TrainingInputError: the supernet is not layer-wise, or differs from the teacher in heads or width, or its blocks
            do not divide the teacher's layers.
    """
    with torch.device("meta"):
        supernet = layerwise(space.supernet(), space_name)
        input_ids_BT = torch.zeros(1, 2, dtype=torch.int64)
        student = supernet.layer_states(supernet.largest(), input_ids_BT, torch.ones_like(input_ids_BT))
    return matching_layers_of(student, teacher)


def matching_layers_of(student: LayerStates, teacher: EncoderShape) -> tuple[int, ...]:
    """The teacher's layer, from 1, that each block learns from, after a look whether they can be compared at all.

    Args:
        student: states of one pass of a supernet.
        teacher: its shape.

    Raises:
        TrainingInputError: they differ in heads or width, or the blocks do not divide the teacher's layers.
    """
    check_heads(student.scores_BHTT[0].shape[1], teacher.num_heads)
    check_width(student.embeddings_BTD.shape[-1], teacher.hidden_size)
    return layer_map(len(student.hidden_BTD), teacher.num_layers)


class WarmUp(TrainingTask):
    """Trains a layer-wise supernet by ``L_hidden`` (:mod:`trainers.layer_losses`).

    Args:
        supernet: at its start.
        space: it belongs to; draws the architectures.
        teacher: gives the targets.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.

    Raises:
        TrainingInputError: student and teacher cannot be compared layer by layer.
    """

    def __init__(
        self,
        supernet: LayerwiseSupernet[Any],
        space: SearchSpace[Any],
        teacher: Teacher,
        corpus: PackedCorpus,
        settings: WarmUpSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.supernet = supernet.to(self.device).train()
        self.space = space
        self.teacher = teacher
        self.teacher.to(self.device)
        self.corpus = corpus
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        self.layers = self._matching_layers()
        self._parameters = list(supernet.parameters())
        self.optimiser = make_optimiser(supernet, settings.optimiser)
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    @torch.no_grad()
    def _matching_layers(self) -> tuple[int, ...]:
        """The teacher's layers that the student's blocks learn from; a look at one sequence tells whether they can."""
        input_ids_BT, mask_BT = (tensor.to(self.device) for tensor in self.corpus.even_batches(1, 1)[0])
        student = self.supernet.layer_states(self.supernet.largest(), input_ids_BT, mask_BT)
        return matching_layers_of(student, self.teacher.shape)

    def step(self, step: int) -> None:
        """Train one architecture on one batch; all workers the same architecture, each on other text.

        The optimiser averages gradients over workers, which takes gradients of the same weights.
        """
        settings = self.settings
        rows = self.corpus.step_rows(step, settings.batch_size, settings.seed, self.rank, self.world_size)
        input_ids_BT, mask_BT = (tensor.to(self.device) for tensor in rows)
        architecture = self.architecture_of(step)
        torch.manual_seed(hash((settings.seed, step, self.rank)))  # of dropout, also after a resume
        with autocast(settings.precision, self.device):
            targets = self.teacher.layer_states(input_ids_BT, mask_BT, self.layers)
            states = self.supernet.layer_states(architecture, input_ids_BT, mask_BT)
        loss = layer_losses(states, targets, mask_BT, settings.padding, settings.scale).total
        loss.backward()
        apply_step(self.optimiser, settings.optimiser, step, [self._parameters])
        self._meter.add("loss", loss)
        self._meter.add("relative_mse", relative_error(states, targets, mask_BT))
        self._tokens += int(mask_BT.sum()) * self.world_size

    def architecture_of(self, step: int) -> Any:
        """The architecture that is trained in a step; depends on the seed and the step alone."""
        if self.settings.sampling == "largest":
            return self.supernet.largest()
        return drawn_architecture(self.space, self.settings.seed, step)

    def rows(self, steps_done: int) -> list[Row]:
        """One row: means over the interval, and what the whole training has consumed."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        return [
            {
                "stage": "supernet",
                "subject": "supernet",
                "step": steps_done,
                "loss": means["loss"],
                "relative_mse": means["relative_mse"],
                "learning_rate": self.settings.optimiser.learning_rate_at(steps_done - 1),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "path_updates": steps_done,
                "workers": self.world_size,
            }
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The supernet's weights."""
        return self.supernet.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the supernet's weights."""
        self.supernet.load_state_dict(tensors)

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments, the token count and the unfinished interval's sums."""
        return {"optimiser": self.optimiser.state_dict(), "tokens": self._tokens, "meter": self._meter.state()}

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])


def drawn_architecture(space: SearchSpace[Any], seed: int, step: int) -> Any:
    """What a space draws for a step; depends on the seed and the step alone, so all workers draw the same."""
    return space.sample(random.Random(f"{seed}/{step}"))


@torch.no_grad()
def relative_error(student: LayerStates, teacher: LayerStates, mask_BT: Tensor) -> Tensor:
    """Squared error of the last state over text, divided by the variance of the teacher's."""
    ours_BTD, theirs_BTD = student.hidden_BTD[-1], teacher.hidden_BTD[-1]
    return masked_mse(ours_BTD, theirs_BTD, mask_BT) / masked_variance(theirs_BTD, mask_BT)
