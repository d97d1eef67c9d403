"""Block-wise supernet training (NAS-BERT, section 3.2): every block learns to stand in for the teacher's.

Shape legend: B batch, T tokens, D hidden size of the teacher.

One pass of the teacher gives input and target of all blocks; K random paths of each block are updated on it. Blocks
are independent, so each path's graph is freed before the next is built. What makes a training faster or better without
being part of a step has a module of its own: the teacher's states on disk (:mod:`trainers.teacher_states`) and
progressive shrinking (:mod:`trainers.shrinking`).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.registry import load_space
from spaces.space import BlockwiseSpace, SamplingLaw
from spaces.supernet import BlockwiseSupernet
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse, masked_variance
from trainers.masking import Masking
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.population import Population
from trainers.precision import Precision, autocast
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.shrinking import Shrinking, ShrinkingSettings
from trainers.task import Row, TrainingTask
from trainers.teacher import Teacher, TeacherSource
from trainers.teacher_states import CacheFormat, TeacherStates
from trainers.validation import ValidationBatch, validation_batches

CALIBRATION_SEQUENCES = 16
_EMBEDDING_BLOCK = -1
"""Block number of the embeddings in metrics: they stand before block 0."""


@dataclass(frozen=True)
class BlockwiseSettings:
    """How a block-wise supernet is trained.

    Attributes:
        init: ``teacher`` or ``paper``; see :meth:`spaces.supernet.BlockwiseSupernet.start`.
        batch_size: sequences of a step, all workers together.
        paths_per_step: K, paths of each block that are updated on one pass of the teacher.
        seed: of data order, sampled paths and random starts.
        precision: number format of forward passes.
        optimiser: learning rate, steps and regularisation.
        sampling: the law by which paths are drawn, among the living ones where the supernet is shrunk.
        shrinking: when and how architectures are removed; ``None``: never.
        teacher_cache: number format of the teacher's states on disk; ``off``: they are computed each time.
        shared_layers: first layers that the paths of a step have in common, which are then computed once for all; 0
            for independent paths.
        mask_probability: share of the tokens that are hidden from teacher and student alike, as in the teacher's own
            pre-training (section 4.1 trains on masked text, and names no other loss than the MSE); 0 for plain text.
    """

    init: str
    batch_size: int
    paths_per_step: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings
    sampling: SamplingLaw = "architectures"
    shrinking: ShrinkingSettings | None = None
    teacher_cache: CacheFormat = "off"
    shared_layers: int = 0
    mask_probability: float = 0.0


@dataclass(frozen=True)
class BlockwiseFactory:
    """Makes a worker's :class:`BlockwiseTraining` from folders; picklable.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus.
        space_name: of a space whose supernet is block-wise.
        space_options: the recipe's options of the space.
        settings: how to train.
        validation_folder: packed held-out text, which shrinking evaluates on.
        cache_folder: where the teacher's states may be kept.
    """

    teacher_folder: Path
    corpus_folder: Path
    space_name: str
    space_options: Mapping[str, Any]
    settings: BlockwiseSettings
    validation_folder: Path | None = None
    cache_folder: Path | None = None

    def __call__(self, rank: int, world_size: int, device: torch.device) -> BlockwiseTraining:
        """Load teacher and corpus, build and start the supernet."""
        teacher = TeacherSource(str(self.teacher_folder)).load()
        corpus = PackedCorpus(self.corpus_folder)
        space = load_space(self.space_name, self.space_options, teacher.shape)
        torch.manual_seed(self.settings.seed)
        supernet = space.supernet()
        if not isinstance(space, BlockwiseSpace) or not isinstance(supernet, BlockwiseSupernet):
            raise TrainingInputError(
                f"space.name: found '{self.space_name}', whose supernet cannot be trained block by block"
            )
        calibration = corpus.even_batches(1, CALIBRATION_SEQUENCES)[0]
        supernet.start(teacher.model, *calibration, init=self.settings.init)
        validation = None if self.validation_folder is None else PackedCorpus(self.validation_folder)
        return BlockwiseTraining(
            supernet, space, teacher, corpus, self.settings, rank, world_size, device, validation, self.cache_folder
        )


class BlockwiseTraining(TrainingTask):
    """Trains a block-wise supernet.

    Args:
        supernet: started.
        space: it belongs to.
        teacher: gives inputs and targets.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
        validation: held-out text, needed where the supernet is shrunk.
        cache_folder: where the teacher's states are kept, needed where they are.
    """

    def __init__(
        self,
        supernet: BlockwiseSupernet[Any],
        space: BlockwiseSpace[Any],
        teacher: Teacher,
        corpus: PackedCorpus,
        settings: BlockwiseSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        validation: PackedCorpus | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.supernet = supernet.to(self.device).train()
        self.space = space
        self.teacher = teacher
        self.teacher.to(self.device)
        self.states = TeacherStates(
            teacher,
            corpus,
            supernet.num_blocks,
            settings.precision,
            self.device,
            settings.teacher_cache if settings.optimiser.total_steps * settings.batch_size > len(corpus) else "off",
            cache_folder,
        )
        self._masking = Masking.of_tokenizer(teacher.tokenizer, settings.mask_probability)
        if settings.mask_probability and settings.teacher_cache != "off":
            raise TrainingInputError(
                f"supernet.teacher_cache: found {settings.teacher_cache}, expected off where mask_probability is above "
                f"0: other tokens are masked each time the text is seen"
            )
        self.corpus = corpus
        self.validation = validation
        self._dev_batches: list[ValidationBatch] | None = None
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        self._embeddings = supernet.embedding_modules()
        for parameter in supernet.parameters():
            parameter.requires_grad_(False)
        parts = [*map(supernet.block_module, range(supernet.num_blocks)), *self._embeddings.values()]
        self._parts = [[*part.requires_grad_(True).parameters()] for part in parts]
        self.optimiser = make_optimiser(supernet, settings.optimiser)
        self.shrinking: Shrinking | None = None
        if settings.shrinking is not None:
            if validation is None:
                raise TrainingInputError("shrinking needs held-out text: found no validation corpus, expected one")
            self.shrinking = Shrinking(
                space, settings.shrinking, settings.sampling, settings.seed, rank, world_size, self.device
            )
        self._population: Population | None = None
        if self.shrinking is not None:
            self._population = self.shrinking.population
        elif settings.shared_layers:
            self._population = Population.of_all(space, settings.sampling)
        self._meter = IntervalMeter()
        self._tokens = 0
        self._tokens_before = 0

    @property
    def finished(self) -> bool:
        """Whether a round has brought shrinking to its end, and the training is to stop with it."""
        shrinking = self.shrinking
        return shrinking is not None and shrinking.settings.stop_when_done and shrinking.done and shrinking.round > 0

    def step(self, step: int) -> None:
        """Update K sampled paths of every block, and one embedding size that is not the teacher's if there is any.

        A step that ends an epoch may be followed by a round of shrinking.
        """
        settings = self.settings
        rows_B = self.corpus.step_indices(step, settings.batch_size, settings.seed, self.rank, self.world_size)
        input_ids_BT, mask_BT = (tensor.to(self.device) for tensor in self._text(rows_B, step))
        states_BTD = self.states.of(rows_B, input_ids_BT, mask_BT)
        visible_BT = mask_BT.to(torch.bool)
        rng = random.Random(f"{settings.seed}/{step}")  # the same paths on every worker, on other data
        torch.manual_seed(hash((settings.seed, step, self.rank)))
        for index in range(self.supernet.num_blocks):
            variance = masked_variance(states_BTD[index + 1], mask_BT)
            for paths in self._draw(index, rng):
                with autocast(settings.precision, self.device):
                    outputs_BTD = self._outputs(index, paths, states_BTD[index], visible_BT)
                self._learn(index, outputs_BTD, states_BTD[index + 1], variance, mask_BT, settings.paths_per_step)
        if self._embeddings:
            size = rng.choice(sorted(self._embeddings))
            with autocast(settings.precision, self.device):
                embedded_BTD = self.supernet.embed(size, input_ids_BT)
            variance = masked_variance(states_BTD[0], mask_BT)
            self._learn(_EMBEDDING_BLOCK, [embedded_BTD], states_BTD[0], variance, mask_BT, 1)
        apply_step(self.optimiser, settings.optimiser, step, self._parts)
        self._tokens += int(mask_BT.sum()) * self.world_size
        if self.shrinking is not None and self.shrinking.is_due(step + 1):
            self._shrink(self.shrinking, step + 1)

    def _text(self, rows_B: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """The rows of a step, with tokens hidden where the settings say so."""
        input_ids_BT, mask_BT = self.corpus.rows(rows_B)
        if self.settings.mask_probability:
            noise = hash((self.settings.seed, step, self.rank))
            input_ids_BT = self._masking.mask(input_ids_BT, mask_BT, noise).input_ids_BT
        return input_ids_BT, mask_BT

    def _draw(self, block: int, rng: random.Random) -> list[list[Any]]:
        """The paths of a step, in groups that are updated together: all at once if they share layers, or one by one."""
        count, shared = self.settings.paths_per_step, self.settings.shared_layers
        if self._population is None:
            return [[self.space.sample_block(rng, self.settings.sampling)] for _ in range(count)]
        if shared:
            return [self._population.draw_family(block, rng, count, shared)]
        return [[self._population.draw(block, rng)] for _ in range(count)]

    def _outputs(self, index: int, paths: Sequence[Any], hidden_BTD: Tensor, visible_BT: Tensor) -> list[Tensor]:
        """What a block makes of a state along some paths; beginnings that they share are computed once."""
        if len(paths) == 1:
            return [self.supernet.forward_block(index, paths[0], hidden_BTD, visible_BT)]
        states: dict[tuple[Hashable, ...], Tensor] = {(): hidden_BTD}
        outputs = []
        for path in paths:
            steps = self.supernet.block_steps(path)
            for position, key in enumerate(steps):
                if steps[: position + 1] not in states:
                    state = states[steps[:position]]
                    states[steps[: position + 1]] = self.supernet.run_step(index, position, key, state, visible_BT)
            outputs.append(self.supernet.leave(index, steps[0], states[steps]))
        return outputs

    def _learn(
        self,
        block: int,
        outputs_BTD: Sequence[Tensor],
        target_BTD: Tensor,
        variance: Tensor,
        mask_BT: Tensor,
        paths: int,
    ) -> None:
        """Add the gradient of some of a step's ``paths`` paths; their graph is freed."""
        losses = [masked_mse(output_BTD, target_BTD, mask_BT) for output_BTD in outputs_BTD]
        (sum(losses[1:], start=losses[0]) / paths).backward()
        for loss in losses:
            self._meter.add((block, "loss"), loss.detach())
            self._meter.add((block, "relative_mse"), loss.detach() / variance)

    def _shrink(self, shrinking: Shrinking, steps_done: int) -> None:
        if self._dev_batches is None:
            assert self.validation is not None
            self._dev_batches = validation_batches(
                self.teacher,
                self.validation,
                self.supernet.num_blocks,
                shrinking.settings.validation_batches,
                shrinking.settings.batch_size,
                device=self.device,
            )
        self.supernet.eval()
        evaluator = PrefixEvaluator(self.supernet, self._dev_batches, self.settings.precision)
        shrinking.run_round(steps_done, evaluator, self.tell)
        self.supernet.train()

    def news(self) -> list[Row]:
        """The rounds of shrinking that the last step brought about."""
        return [] if self.shrinking is None else self.shrinking.news()

    def rows(self, steps_done: int) -> list[Row]:
        """One row a block: mean loss over the interval, and what the whole training has consumed."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        paths = steps_done * self.settings.paths_per_step
        return [
            {
                "stage": "supernet",
                "subject": "supernet",
                "block": None if block == _EMBEDDING_BLOCK else block,
                "step": steps_done,
                "loss": means[block, "loss"],
                "relative_mse": means[block, "relative_mse"],
                "learning_rate": self.settings.optimiser.learning_rate_at(steps_done - 1),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "path_updates": steps_done if block == _EMBEDDING_BLOCK else paths * self.supernet.num_blocks,
                "workers": self.world_size,
            }
            for block in sorted({name[0] for name in means})  # type: ignore[index]
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The supernet's weights."""
        return self.supernet.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the supernet's weights."""
        self.supernet.load_state_dict(tensors)

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments, the token count, the unfinished interval's sums, and who lives."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "tokens": self._tokens,
            "meter": self._meter.state(),
            "shrinking": None if self.shrinking is None else self.shrinking.state(),
        }

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])
        if self.shrinking is not None:
            self.shrinking.load_state(state["shrinking"])
