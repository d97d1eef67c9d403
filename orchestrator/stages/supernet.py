"""The stage that trains the supernet on Ray Train."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from cluster.resources import ResourceRequest
from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.training import (
    estimated_seconds,
    optimiser_settings,
    remove_checkpoints,
    resources,
    teacher_flops,
    train,
)
from spaces.space import BlockwiseSpace
from trainers.blockwise import BlockwiseFactory, BlockwiseSettings
from trainers.task import WEIGHTS


class SupernetStage(Stage):
    """Trains the block-wise supernet against the teacher's hidden states."""

    name = "supernet"
    inputs = ("teacher", "corpus")

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and supernet, and the seed."""
        return [plan.recipe.space, plan.recipe.supernet, plan.recipe.seed]

    def check(self, plan: RunPlan) -> None:
        """The space's supernet is made of blocks, and can start as the recipe says."""
        if not isinstance(plan.space, BlockwiseSpace):
            raise UserError(
                f"space.name: found '{plan.recipe.space.name}', which is no space of blocks; expected one whose "
                f"supernet can be trained block by block, such as nas_bert"
            )
        plan.space.check_start(plan.recipe.supernet.init)

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the workers need of the cluster."""
        return resources(self.name, plan.recipe.supernet)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Steps and tokens are exact; time is a rough estimate."""
        recipe, shape = plan.recipe, plan.shape
        settings, length = recipe.supernet, recipe.corpus.sequence_length
        flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
        seconds = estimated_seconds(settings, flops * (1 + 1.5 * settings.paths_per_step))
        work = (
            f"train the supernet ({settings.init} init) with {settings.paths_per_step} paths a teacher pass on "
            f"{settings.scaling.workers} worker(s)"
        )
        tokens = settings.steps * settings.batch_size * length
        return PlannedStage(self.name, "run", work, steps=settings.steps, tokens=tokens, seconds=seconds)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Train, or go on training, and keep the weights."""
        recipe, folder = context.recipe, context.folder
        settings = recipe.supernet
        factory = BlockwiseFactory(
            teacher_folder=folder.teacher,
            corpus_folder=folder.corpus,
            space_name=recipe.space.name,
            space_options=recipe.space.options,
            settings=BlockwiseSettings(
                init=settings.init,
                batch_size=settings.batch_size,
                paths_per_step=settings.paths_per_step,
                seed=recipe.seed,
                precision=settings.precision,
                optimiser=optimiser_settings(settings),
            ),
        )
        checkpoint = train(context, self.name, settings, factory, progress)
        weights = folder.supernet_weights
        weights.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(weights, lambda partial: shutil.copyfile(checkpoint / WEIGHTS, partial))
        return StageResult(f"{settings.steps} steps, {settings.steps * settings.paths_per_step} paths a block")

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the weights are there."""
        return plan.folder.supernet_weights.is_file()
