"""Block-wise supernet training (NAS-BERT, section 3.2): every block learns to stand in for the teacher's.

Shape legend: B batch, T tokens, D hidden size of the teacher.

One pass of the teacher gives input and target of all blocks; K random paths of each block are updated on it. Blocks
are independent, so each path's graph is freed before the next is built.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaces.registry import load_space
from spaces.space import BlockwiseSpace
from spaces.supernet import BlockwiseSupernet
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse, masked_variance
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.precision import Precision, autocast
from trainers.task import Row, TrainingTask
from trainers.teacher import Teacher, TeacherSource

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
    """

    init: str
    batch_size: int
    paths_per_step: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings


@dataclass(frozen=True)
class BlockwiseFactory:
    """Makes a worker's :class:`BlockwiseTraining` from folders; picklable.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus.
        space_name: of a space whose supernet is block-wise.
        space_options: the recipe's options of the space.
        settings: how to train.
    """

    teacher_folder: Path
    corpus_folder: Path
    space_name: str
    space_options: Mapping[str, Any]
    settings: BlockwiseSettings

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
        return BlockwiseTraining(supernet, space, teacher, corpus, self.settings, rank, world_size, device)


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
        self._embeddings = supernet.embedding_modules()
        for parameter in supernet.parameters():
            parameter.requires_grad_(False)
        self._parts = [*map(supernet.block_module, range(supernet.num_blocks)), *self._embeddings.values()]
        for part in self._parts:
            part.requires_grad_(True)
        self.optimiser = make_optimiser(supernet, settings.optimiser)
        self._meter = IntervalMeter()
        self._tokens = 0
        self._tokens_before = 0

    def step(self, step: int) -> None:
        """Update K sampled paths of every block, and one embedding size that is not the teacher's if there is any."""
        settings = self.settings
        input_ids_BT, mask_BT = (
            tensor.to(self.device)
            for tensor in self.corpus.step_rows(step, settings.batch_size, settings.seed, self.rank, self.world_size)
        )
        layers = self.teacher.block_layers(self.supernet.num_blocks)
        with autocast(settings.precision, self.device):
            states_BTD = [state.float() for state in self.teacher.states(input_ids_BT, mask_BT, layers)]
        visible_BT = mask_BT.to(torch.bool)
        rng = random.Random(f"{settings.seed}/{step}")  # the same paths on every worker, on other data
        torch.manual_seed(hash((settings.seed, step, self.rank)))
        for index in range(self.supernet.num_blocks):
            for _ in range(settings.paths_per_step):
                path = self.space.sample_block(rng)
                with autocast(settings.precision, self.device):
                    output_BTD = self.supernet.forward_block(index, path, states_BTD[index], visible_BT)
                self._learn(index, output_BTD, states_BTD[index + 1], mask_BT, settings.paths_per_step)
        if self._embeddings:
            size = rng.choice(sorted(self._embeddings))
            with autocast(settings.precision, self.device):
                embedded_BTD = self.supernet.embed(size, input_ids_BT)
            self._learn(_EMBEDDING_BLOCK, embedded_BTD, states_BTD[0], mask_BT, 1)
        apply_step(self.optimiser, settings.optimiser, step, self._parts)
        self._tokens += int(mask_BT.sum()) * self.world_size

    def _learn(self, block: int, output_BTD: Tensor, target_BTD: Tensor, mask_BT: Tensor, paths: int) -> None:
        loss = masked_mse(output_BTD, target_BTD, mask_BT)
        (loss / paths).backward()
        variance = masked_variance(target_BTD, mask_BT)
        self._meter.add((block, "loss"), loss.item())
        self._meter.add((block, "relative_mse"), (loss / variance).item())

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
        """Adam's moments, the token count and the unfinished interval's sums."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "tokens": self._tokens,
            "meter": self._meter.state(),
        }

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over Adam's moments, the token count and the unfinished interval's sums."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])
