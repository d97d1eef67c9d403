"""The stage that measures what the paths through single blocks lose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.evaluators import evaluator_factory
from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace, SearchSpace
from trainers.validation import variance_at


class BlockLossStage(Stage):
    """Measures the loss of architectures of every block, fed with the teacher's states."""

    name = "block_losses"
    inputs = ("supernet",)
    version = 2

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """How many architectures on how many batches, and the seed."""
        tables = plan.recipe.tables
        return [tables.block_architectures, tables.block_batches, plan.recipe.search.batch_size, plan.recipe.seed]

    def check(self, plan: RunPlan) -> None:
        """Nothing that earlier checks have not seen."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One evaluation a sampled block architecture."""
        blocks, each = _blockwise(plan.space).num_blocks, plan.recipe.tables.block_architectures
        work = f"score {each} architectures of each of {blocks} blocks"
        return PlannedStage(self.name, "run", work, evaluations=each * blocks, seconds=3 + 0.03 * each * blocks)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Sample, score and record."""
        recipe, space = context.recipe, _blockwise(context.space)
        tables = recipe.tables
        factory = evaluator_factory(recipe, context.folder, tables.block_batches, recipe.search.batch_size, threads=0)
        evaluator = factory().blocks()
        each = min(tables.block_architectures, space.block_cardinality())
        progress.follow(each * space.num_blocks, "block architectures")
        rng = random.Random(f"{recipe.seed}/block table")
        for index in range(space.num_blocks):
            sampled: dict[Architecture, None] = {}
            while len(sampled) < each:
                sampled[space.sample_block(rng)] = None
            blocks = list(sampled)
            variance = variance_at(evaluator.batches, index + 1)
            for block, loss in zip(blocks, evaluator.losses(index, blocks), strict=True):
                cost = space.block_cost(block, recipe.corpus.sequence_length)
                context.results.append(
                    "block_losses",
                    supernet_signature=context.outputs["supernet"]["signature"],
                    block=index,
                    arch_id=block.arch_id,
                    architecture=str(block),
                    hidden_size=space.block_width(block),
                    layers=len(space.parts_of_block(block)),
                    fidelity=tables.block_batches,
                    loss=loss,
                    variance=variance,
                    relative_loss=loss / variance,
                    parameters=cost.parameters,
                    flops=cost.flops,
                )
            progress.advance(len(blocks))
        return StageResult(f"{each} architectures of each of {space.num_blocks} blocks")


def _blockwise(space: SearchSpace[Any]) -> BlockwiseSpace[Any]:
    if not isinstance(space, BlockwiseSpace):
        raise UserError(f"space.name: '{space.name}' is not a space of blocks; set tables.block_architectures: 0")
    return space
