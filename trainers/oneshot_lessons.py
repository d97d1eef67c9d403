"""What the paths of a one-shot search learn from: by default, to say of plain text what a teacher says.

Shape legend: B batch, T tokens, D hidden size of the teacher.

A search asks for a lesson each step, shares it out among the paths of the step or shows all of it to each, and has
every path learn it. What a path is run on and what it should say is the lesson's business; which path it is, is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spaces.sampling_distribution import SampledSupernet
from trainers.corpus import PackedCorpus
from trainers.losses import masked_mse, masked_variance
from trainers.oneshot_settings import OneShotSettings
from trainers.precision import Precision, autocast
from trainers.teacher import Teacher


@dataclass(frozen=True)
class Learned:
    """What came of one path's lesson.

    Attributes:
        loss: a scalar with gradients.
        metrics: scalars for the table ``training``, by column; the same names from all lessons of a training.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Lesson(Protocol):
    """What one worker's paths learn in a step."""

    @property
    def tokens(self) -> int:
        """Valid tokens."""

    def share(self, number: int, count: int) -> Self:
        """The part of one of ``count`` paths, from 0 on; never empty."""

    def learn(self, supernet: SampledSupernet[Any], runnable: Any) -> Learned:
        """Run a path.

        Args:
            supernet: in training mode.
            runnable: a member of its space, or the gates of one.
        """


class Lessons(Protocol):
    """Where lessons come from. A step's lesson depends on the step's number alone, so that a resumed search goes on."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What else than the supernet learns, by name: it is trained, saved and restored with it."""

    def draw(self, step: int) -> Lesson:
        """This worker's lesson of a step."""


# --- plain text ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaughtText:
    """Some sequences and what the teacher says of them.

    Attributes:
        rows_B: their numbers in the corpus.
        input_ids_BT: tokens.
        mask_BT: 1 for valid ones.
        states_BTD: of the teacher: the embeddings' output, and the state after each layer.
    """

    rows_B: NDArray[np.int64]
    input_ids_BT: Tensor
    mask_BT: Tensor
    states_BTD: tuple[Tensor, ...]

    def share(self, number: int, count: int) -> TaughtText:
        """Every so-many-th sequence, from one on."""
        chosen = slice(number, None, count)
        states_BTD = tuple(state_BTD[chosen] for state_BTD in self.states_BTD)
        return TaughtText(self.rows_B[chosen], self.input_ids_BT[chosen], self.mask_BT[chosen], states_BTD)


class PathLoss(Protocol):
    """What a path is to learn of a text."""

    def __call__(self, states_BTD: Sequence[Tensor], text: TaughtText) -> Tensor:
        """A scalar for the states of a path, the embeddings' output first, on some text."""


@dataclass(frozen=True)
class StateLoss:
    """Squared error of the last state, relative to the variance of the teacher's.

    Attributes:
        intermediate_weight: on the mean of the same of the layers before the last.
    """

    intermediate_weight: float = 0.0

    def __call__(self, states_BTD: Sequence[Tensor], text: TaughtText) -> Tensor:
        """See :class:`PathLoss`."""
        loss = _relative_mse(states_BTD[-1], text.states_BTD[-1], text.mask_BT)
        if self.intermediate_weight > 0 and len(states_BTD) > 2:
            pairs = zip(states_BTD[1:-1], text.states_BTD[1:-1], strict=True)
            errors = [_relative_mse(ours_BTD, theirs_BTD, text.mask_BT) for ours_BTD, theirs_BTD in pairs]
            loss = loss + self.intermediate_weight * torch.stack(errors).mean()
        return loss


def _relative_mse(ours_BTD: Tensor, theirs_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    return masked_mse(ours_BTD, theirs_BTD, mask_BT) / masked_variance(theirs_BTD, mask_BT)


@dataclass(frozen=True)
class TextLesson:
    """A text that paths are to say what the teacher says of.

    Attributes:
        text: with the teacher's states.
        loss: what paths are to learn of it.
        precision: number format of forward passes.
    """

    text: TaughtText
    loss: PathLoss
    precision: Precision

    @property
    def tokens(self) -> int:
        """Valid tokens."""
        return int(self.text.mask_BT.sum())

    def share(self, number: int, count: int) -> TextLesson:
        """Every so-many-th sequence, from one on."""
        return TextLesson(self.text.share(number, count), self.loss, self.precision)

    def learn(self, supernet: SampledSupernet[Any], runnable: Any) -> Learned:
        """See :meth:`Lesson.learn`; the metric is the relative error of the last state, whatever the loss."""
        text = self.text
        with autocast(self.precision, text.input_ids_BT.device):
            states_BTD = supernet.hidden_states(runnable, text.input_ids_BT, text.mask_BT)
        loss = self.loss(states_BTD, text)
        with torch.no_grad():
            error = _relative_mse(states_BTD[-1], text.states_BTD[-1], text.mask_BT)
        return Learned(loss, {"relative_mse": error})


class TextLessons:
    """The teacher's states on a corpus.

    Args:
        teacher: gives the targets.
        corpus: training text.
        settings: of the search: batch size, seed, precision, and what states between the layers count.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
        loss: what paths are to learn; by default :class:`StateLoss`.
    """

    def __init__(
        self,
        teacher: Teacher,
        corpus: PackedCorpus,
        settings: OneShotSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        loss: PathLoss | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.teacher = teacher
        self.teacher.to(self.device)
        self.corpus = corpus
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.loss = loss or StateLoss(settings.intermediate_weight)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """None: the supernet alone learns."""
        return {}

    def draw(self, step: int) -> TextLesson:
        """This worker's text of a step."""
        settings = self.settings
        rows_B = self.corpus.step_indices(step, settings.batch_size, settings.seed, self.rank, self.world_size)
        input_ids_BT, mask_BT = (tensor.to(self.device) for tensor in self.corpus.rows(rows_B))
        layers = range(self.teacher.shape.num_layers + 1)
        with autocast(settings.precision, self.device):
            states_BTD = self.teacher.states(input_ids_BT, mask_BT, layers)
        return TextLesson(TaughtText(rows_B, input_ids_BT, mask_BT, tuple(states_BTD)), self.loss, settings.precision)
