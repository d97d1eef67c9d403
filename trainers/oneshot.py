"""One-shot search: a supernet trained together with the distribution that its paths are drawn from.

Shape legend: S paths of one worker, W workers.

The method of Finding Fast Transformers (Tsai et al. 2020) as far as it is known: ``min E[loss] + lambda E[cost] /
cost(largest)`` over weights and distribution, where architectures are drawn from the distribution. The estimator,
the schedule and the losses are the paper notes' proposals. Where the loss comes from is said by lessons: plain text and
a teacher's states (:class:`OneShot`), or a task (:mod:`trainers.tasks.oneshot_task`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel

from spaces.encoder_shape import EncoderShape
from spaces.ordering import in_order_of_importance
from spaces.registry import load_space
from spaces.sampled_space import CostName, LatencyPrices, SampledSpace
from spaces.sampling_distribution import ExpectedCost, SampledSupernet, SamplingDistribution
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.meters import IntervalMeter
from trainers.oneshot_estimators import PathMemory, compared_paths, score_loss
from trainers.oneshot_lessons import Lesson, Lessons, PathLoss, TextLessons
from trainers.oneshot_settings import ComponentOrder, OneShotSettings
from trainers.oneshot_start import load_start
from trainers.optimisation import apply_step, average_gradients, complete_gradients, make_optimiser
from trainers.task import Row, TrainingTask, tensors_of
from trainers.teacher import Teacher, TeacherSource
from trainers.warm_up import calibration_text, share_state, threads_of_all

_SUPERNET, _DISTRIBUTION = "supernet", "distribution"
_LARGEST_SEED = 2**63


@dataclass(frozen=True)
class OneShotFactory:
    """Makes a worker's :class:`OneShot` from folders; picklable.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus.
        space_name: of a space with a distribution.
        space_options: the recipe's options of the space.
        settings: how to train.
        cost: what is to become cheaper: a count, or latency by its prices on a device.
        start: the folder of an already distilled student to start at, which the space is made for; the teacher
            without one.
    """

    teacher_folder: Path
    corpus_folder: Path
    space_name: str
    space_options: Mapping[str, Any]
    settings: OneShotSettings
    cost: CostName | LatencyPrices = "flops"
    start: Path | None = None

    def __call__(self, rank: int, world_size: int, device: torch.device) -> OneShot:
        """Load teacher and corpus, and start the supernet and the distribution at the teacher, or at the student.

        Raises:
            TrainingInputError: the space has no distribution, or the student does not compare with the teacher.
            SpaceError: the space does not lie within the student.
        """
        teacher = TeacherSource(str(self.teacher_folder)).load()
        corpus = PackedCorpus(self.corpus_folder)
        between = self.settings.intermediate_weight > 0
        start = load_start(self.start, teacher, corpus.description.sequence_length, between)
        space = sampled_space(self.space_name, self.space_options, start.shape)
        torch.manual_seed(self.settings.seed)  # of weights that a student does not have
        supernet: Any = space.supernet()
        supernet.start(first_in_order(start.model, calibration_text(corpus), self.settings.order, rank, world_size))
        cost = named_cost(space, self.cost, corpus.description.sequence_length)
        return OneShot(supernet, space, cost, teacher, corpus, self.settings, rank, world_size, device)


def in_order(model: PreTrainedModel, text: tuple[Tensor, Tensor], order: ComponentOrder) -> PreTrainedModel:
    """A model as a supernet of components starts at it.

    Args:
        model: a BERT, or what was taken apart before; it is left as it is.
        text: that tells what is important: token ids, and a mask with 1 for valid ones.
        order: of heads, neurons, and channels of queries and keys; only that of a BERT is changed.
    """
    if order == "teacher" or not isinstance(model, BertModel):
        return model
    ordered: PreTrainedModel = in_order_of_importance(model, *text)
    return ordered


def first_in_order(
    model: PreTrainedModel, text: tuple[Tensor, Tensor], order: ComponentOrder, rank: int, world_size: int
) -> PreTrainedModel:
    """:func:`in_order` on the first worker, with the threads of all; the others are given its weights afterwards.

    Args:
        model: a BERT, or what was taken apart before; it is left as it is.
        text: that tells what is important.
        order: of the components.
        rank: number of this worker.
        world_size: workers.
    """
    if rank != 0:
        return model
    with threads_of_all(world_size):
        return in_order(model, text, order)


def named_cost(space: SampledSpace[Any], cost: CostName | LatencyPrices, sequence_length: int) -> ExpectedCost:
    """A cost of a space in a form whose expectation is known.

    Args:
        space: whose networks cost it.
        cost: a count, or latency by its prices on a device.
        sequence_length: tokens of a sequence, for FLOPs.
    """
    if isinstance(cost, LatencyPrices):
        return space.latency_cost(cost.prices, cost.base_ms)
    return space.expected_cost(cost, sequence_length)


def sampled_space(name: str, options: Mapping[str, Any], shape: EncoderShape) -> SampledSpace[Any]:
    """The space of that name, if it has a distribution to learn.

    Args:
        name: of a space.
        options: the recipe's options of it.
        shape: of what the supernet starts at.

    Raises:
        TrainingInputError: the space has no distribution.
    """
    space = load_space(name, options, shape)
    if not isinstance(space, SampledSpace):
        raise TrainingInputError(
            f"space.name: found '{name}', which has no distribution to learn; expected a space such as components, or "
            f"another way to train"
        )
    return space


class OneShotSearch(TrainingTask):
    """Trains a supernet and a distribution over its paths.

    Every worker draws paths of its own for each step, by random numbers of the seed, the step and the path's number
    among all workers'; gradients are averaged.

    Args:
        supernet: at its start; all workers go on from the first one's.
        space: it belongs to; makes the distribution.
        cost: what is to become cheaper.
        lessons: this worker's, on ``device``.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.

    Raises:
        TrainingInputError: there are too few paths, or there is nothing to search.
    """

    def __init__(
        self,
        supernet: SampledSupernet[Any],
        space: SampledSpace[Any],
        cost: ExpectedCost,
        lessons: Lessons,
        settings: OneShotSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        settings.check_paths(world_size)
        self.device = device or torch.device("cpu")
        self.supernet = supernet.to(self.device).train()
        self.space = space
        self.distribution: SamplingDistribution[Any] = space.distribution(settings.certainty).to(self.device)
        self._odds = list(self.distribution.parameters())
        if not self._odds:
            raise TrainingInputError("space.options: everything is fixed, expected something to search")
        self.cost = cost
        self.whole_cost = cost.of(supernet.largest())
        self.lessons = lessons
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        self._learner = nn.ModuleDict({_SUPERNET: self.supernet, **lessons.modules})
        share_state(self._learner, world_size, self.device)  # a start that is fitted may differ from machine to machine
        self._weights = list(self._learner.parameters())
        self.optimiser = make_optimiser(self._learner, settings.optimiser)
        self.distribution_optimiser = torch.optim.Adam(self._odds, lr=settings.distribution_rate)
        self.memory = PathMemory(settings.reuse if settings.estimator == "importance_weighted" else 1)
        self._frozen: Any = None
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    # --- what is drawn -------------------------------------------------------------------------------------------

    @property
    def _numbers(self) -> range:
        """The numbers of this worker's paths among those of all workers."""
        return range(self.rank, self.settings.paths * self.world_size, self.world_size)

    def _generator(self, step: int, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(step, number, purpose=0))

    def _seed(self, step: int, number: int, purpose: int) -> int:
        return hash((self.settings.seed, step, number, purpose)) % _LARGEST_SEED

    def architectures_of(self, step: int) -> list[Any]:
        """All workers' paths of a step that is not frozen, as the distribution is now."""
        numbers = range(self.settings.paths * self.world_size)
        return [self.distribution.draw(self._generator(step, number)) for number in numbers]

    def frozen_architecture(self) -> Any:
        """The architecture that is trained once the distribution is frozen."""
        if self._frozen is None:
            self._frozen = self.distribution.most_likely()
        return self._frozen

    def _runnable(self, step: int, number: int) -> Any:
        """What the supernet runs as one of a step's paths."""
        phase = self.settings.phase_of(step)
        if phase == "frozen":
            return self.frozen_architecture()
        if phase == "search" and self.settings.estimator == "straight_through":
            return self.distribution.draw_gates(self._generator(step, number), self.settings.temperature_at(step))
        return self.distribution.draw(self._generator(step, number))

    # --- a step --------------------------------------------------------------------------------------------------

    def step(self, step: int) -> None:
        """Train the paths of a step, and in the search the distribution as well."""
        settings, searching = self.settings, self.settings.phase_of(step) == "search"
        lesson = self.lessons.draw(step)
        losses = []
        frozen = settings.phase_of(step) == "frozen"
        numbers = self._numbers[:1] if frozen else self._numbers
        for place, number in enumerate(numbers):
            share = lesson if settings.same_text or frozen else lesson.share(place, settings.paths)
            losses.append(self._run(step, number, share, len(numbers)))
        complete_gradients(self._weights)
        apply_step(self.optimiser, settings.optimiser, step, [self._weights])
        if searching:
            self._learn_odds(step, torch.stack(losses))
        self._tokens += lesson.tokens * self.world_size

    def _run(self, step: int, number: int, lesson: Lesson, paths: int) -> Tensor:
        """Add the gradient of one of this worker's ``paths`` paths; its graph is freed. Returns its loss."""
        runnable = self._runnable(step, number)
        torch.manual_seed(self._seed(step, number, purpose=1))  # of dropout, also after a resume
        learned = lesson.learn(self.supernet, runnable)
        (learned.loss / paths).backward()
        for name, value in {"loss": learned.loss, **learned.metrics}.items():
            self._meter.add(name, value)
        return learned.loss.detach()

    def _learn_odds(self, step: int, losses_S: Tensor) -> None:
        """One step of the distribution, whose gates have their gradients already."""
        settings = self.settings
        objective = settings.cost_weight_at(step) * self.cost.expected(self.distribution) / self.whole_cost
        if settings.estimator != "straight_through":
            self.memory.add(compared_paths(self.distribution, self.architectures_of(step), self._of_all(losses_S)))
            objective = objective + score_loss(self.distribution, self.memory.paths, settings.weight_limits)
        objective.backward()
        average_gradients(self._odds)
        self.distribution_optimiser.step()
        self.distribution_optimiser.zero_grad(set_to_none=True)

    def _of_all(self, losses_S: Tensor) -> Tensor:
        """The losses of all workers' paths, by their numbers."""
        if self.world_size == 1:
            return losses_S
        found_WS = [torch.empty_like(losses_S) for _ in range(self.world_size)]
        dist.all_gather(found_WS, losses_S)
        return torch.stack(found_WS, 1).flatten()

    # --- what is told and saved ----------------------------------------------------------------------------------

    def expected_share(self) -> float:
        """The expected cost as a share of the largest architecture's."""
        with torch.no_grad():
            return float(self.cost.expected(self.distribution)) / self.whole_cost

    def rows(self, steps_done: int) -> list[Row]:
        """One row: means over the interval, what the training has consumed, and the distribution as it is now."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        last = steps_done - 1
        frozen = self.settings.phase_of(last) == "frozen"
        share = self.cost.of(self.frozen_architecture()) / self.whole_cost if frozen else self.expected_share()
        return [
            {
                "stage": "supernet",
                "subject": "supernet",
                "arch_id": self.frozen_architecture().arch_id if frozen else None,
                "step": steps_done,
                **{str(name): mean for name, mean in means.items()},
                "expected_cost": share,
                "cost_weight": self.settings.cost_weight_at(last),
                "entropy": float(self.distribution.entropy().detach()),
                "learning_rate": self.settings.optimiser.learning_rate_at(last),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "path_updates": self._paths_after(steps_done),
                "workers": self.world_size,
            }
        ]

    def _paths_after(self, steps: int) -> int:
        """How many paths have been trained after so many steps."""
        drawn = min(steps, self.settings.frozen_from)
        return drawn * self.settings.paths * self.world_size + (steps - drawn)

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights under ``supernet.`` and the names of the lessons' modules, the log-odds under ``distribution.``.

        :func:`trainers.task.tensors_of` tells them apart.
        """
        odds = {f"{_DISTRIBUTION}.{name}": tensor for name, tensor in self.distribution.state_dict().items()}
        return self._learner.state_dict() | odds

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over all of them."""
        for part, module in (*self._learner.items(), (_DISTRIBUTION, self.distribution)):
            module.load_state_dict(tensors_of(part, tensors))
        self._frozen = None

    def optimiser_state(self) -> dict[str, Any]:
        """Both optimisers' moments, the paths that count again, the token count and the unfinished interval's sums."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "distribution_optimiser": self.distribution_optimiser.state_dict(),
            "memory": self.memory.state(),
            "tokens": self._tokens,
            "meter": self._meter.state(),
        }

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.distribution_optimiser.load_state_dict(state["distribution_optimiser"])
        self.memory.load_state(state["memory"], self.space.parse)
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])


class OneShot(OneShotSearch):
    """The search that learns from plain text what a teacher says of it.

    Args:
        supernet: at its start.
        space: it belongs to; makes the distribution.
        cost: what is to become cheaper.
        teacher: gives the targets.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
        loss: what paths are to learn; by default to say what the teacher says.

    Raises:
        TrainingInputError: there are too few paths, or there is nothing to search.
    """

    def __init__(
        self,
        supernet: SampledSupernet[Any],
        space: SampledSpace[Any],
        cost: ExpectedCost,
        teacher: Teacher,
        corpus: PackedCorpus,
        settings: OneShotSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        loss: PathLoss | None = None,
    ) -> None:
        lessons = TextLessons(teacher, corpus, settings, rank, world_size, device, loss)
        super().__init__(supernet, space, cost, lessons, settings, rank, world_size, device)


def supernet_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The supernet's weights out of :meth:`OneShotSearch.tensors`."""
    return tensors_of(_SUPERNET, tensors)


def distribution_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The distribution's log-odds out of :meth:`OneShotSearch.tensors`."""
    return tensors_of(_DISTRIBUTION, tensors)
