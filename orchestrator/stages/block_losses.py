"""The stage that measures what the paths through single blocks lose, and whether these losses are more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.resources import ResourceRequest
from orchestrator.evaluation.block_choice import Alive, choose_blocks, choose_for_signal, count_chosen
from orchestrator.evaluation.block_scoring import (
    BlockRows,
    BlockScorerFactory,
    RunItems,
    blockwise,
    leave_out_recorded,
    losses_by_batch,
    on_actors,
    score_blocks,
)
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.loss_signal import SizeSignal, signal_of_batches, warnings_about
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.evaluators import evaluator_factory
from spaces.space import BlockwiseSpace
from trainers.shrinking import load_alive

_ARCHITECTURES_PER_SECOND = 30.0
"""What plans assume of one actor and one validation batch; only an order of magnitude."""

_BYTES_A_ROW = 40
"""Size of a row of the table on the disk."""


class BlockLossStage(Stage):
    """Measures the loss of architectures of every block, fed with the teacher's states."""

    name = "block_losses"
    inputs = ("supernet", "latency")
    version = 2

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """Which architectures on how many batches, and the seed."""
        tables = plan.recipe.tables
        return [
            tables.block_architectures,
            tables.block_batches,
            tables.block_output,
            tables.signal_architectures,
            tables.signal_batches,
            plan.recipe.search.batch_size,
            plan.recipe.seed,
        ]

    def check(self, plan: RunPlan) -> None:
        """Nothing: where the space is not one of blocks, none are scored."""

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the actors need of the cluster."""
        search = plan.recipe.search
        return ResourceRequest("search.actors", search.actors, search.cpus_per_actor, search.gpus_per_actor)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One evaluation an architecture of a block, and those of the signal."""
        tables, search = plan.recipe.tables, plan.recipe.search
        reason = _nothing_to_score(plan)
        if reason:
            return PlannedStage(self.name, "run", f"score nothing: {reason}", evaluations=0, seconds=0.0)
        space = blockwise(plan.space)
        chosen = count_chosen(space, tables.block_architectures, load_alive_if_any(plan.folder))
        signal = sum(len(blocks) for blocks in _sizes(space, tables.signal_architectures)) * space.num_blocks
        which = "all" if isinstance(tables.block_architectures, str) else f"{chosen // space.num_blocks:,}"
        bound = "at most " if tables.block_architectures == "alive" else ""
        work = (
            f"score {which if not bound else 'the living'} architectures of each of {space.num_blocks} blocks "
            f"({bound}{chosen:,} in all), {signal:,} more for the signal, on {plural(search.actors, 'actor')}"
        )
        passes = chosen * tables.block_batches + signal * tables.signal_batches
        seconds = 10.0 + passes / (_ARCHITECTURES_PER_SECOND * search.actors)
        evaluations = chosen + signal
        return PlannedStage(
            self.name, "run", work, evaluations=evaluations, seconds=seconds, disk_bytes=_BYTES_A_ROW * chosen
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Score what is not recorded, then the sample that tells the signal."""
        recipe = context.recipe
        tables, search = recipe.tables, recipe.search
        reason = _nothing_to_score(context.plan)
        if reason:
            return StageResult(f"nothing to score: {reason}")
        space, alive = blockwise(context.space), load_alive_if_any(context.folder)
        run_items = on_actors(search.actors, search.cpus_per_actor, search.gpus_per_actor)
        factory = scorer_factory(recipe, context.folder)
        rows = BlockRows(
            space,
            context.outputs["supernet"]["signature"],
            tables.block_batches,
            recipe.corpus.sequence_length,
            LatencyTable.from_json(context.outputs["latency"]["latency_table"]),
            alive,
        )
        wanted = choose_blocks(space, tables.block_architectures, recipe.seed, alive)
        missing = leave_out_recorded(context.results, context.folder.results, rows, wanted)
        total, left = (sum(map(len, blocks.values())) for blocks in (wanted, missing))
        progress.follow(total, "block architectures", done=total - left)
        if tables.block_architectures == "alive" and alive is None:
            progress.message("tables.block_architectures: alive, but nothing was shrunk; all architectures are scored")
        score_blocks(run_items, factory, context.results, rows, missing, search.actors, progress.advance)
        details = [f"{total:,} architectures of {space.num_blocks} blocks"]
        signals = self._signals(context, progress, run_items, factory, alive)
        details += warnings_about(signals)
        for line in details[1:]:
            progress.message(f"warning: {line}")
        context.results.flush()
        return StageResult("; ".join(details))

    @staticmethod
    def _signals(
        context: RunContext,
        progress: StageProgress,
        run_items: RunItems,
        factory: BlockScorerFactory,
        alive: Alive | None,
    ) -> dict[int, list[SizeSignal]]:
        recipe, space = context.recipe, blockwise(context.space)
        tables = recipe.tables
        chosen = choose_for_signal(space, tables.signal_architectures, recipe.seed, alive)
        wanted = {index: [block for blocks in sizes.values() for block in blocks] for index, sizes in chosen.items()}
        progress.follow(sum(map(len, wanted.values())), "block architectures", note="for the signal")
        losses = losses_by_batch(
            run_items, factory, space, wanted, tables.signal_batches, recipe.search.actors, progress.advance
        )
        signals = {
            index: signal_of_batches(_stacked(sizes, losses[index]), tables.block_batches)
            for index, sizes in chosen.items()
        }
        signature = context.outputs["supernet"]["signature"]
        context.results.extend(
            "signals",
            [
                {"supernet_signature": signature, "block": index, **signal.columns()}
                for index, of_sizes in signals.items()
                for signal in of_sizes
            ],
        )
        return signals


def _nothing_to_score(plan: RunPlan) -> str:
    """Why no block is scored; "" where some are."""
    tables = plan.recipe.tables
    if not tables.block_architectures and not tables.signal_architectures:
        return "tables.block_architectures and signal_architectures are 0"
    if not isinstance(plan.space, BlockwiseSpace):
        return f"'{plan.space.name}' has no blocks that learn by themselves"
    return ""


def scorer_factory(recipe: Recipe, folder: RunDirectory) -> BlockScorerFactory:
    """The factory of what scores the blocks of a run's supernet."""
    threads = max(1, int(recipe.search.cpus_per_actor))
    evaluators = evaluator_factory(recipe, folder, recipe.tables.block_batches, recipe.search.batch_size, threads)
    return BlockScorerFactory(evaluators, recipe.tables.block_output)


def load_alive_if_any(folder: RunDirectory) -> Alive | None:
    """Who survived shrinking; ``None`` where nothing was shrunk."""
    file = folder.supernet_weights.with_name("alive.npz")
    return load_alive(file) if file.is_file() else None


def _stacked(
    sizes: Mapping[int, Sequence[Any]], losses: Mapping[Any, NDArray[np.float64]]
) -> dict[int, NDArray[np.float64]]:
    """For each hidden size, the losses on each batch, ``[A, N]``."""
    return {size: np.stack([losses[block] for block in blocks]) for size, blocks in sizes.items()}


def _sizes(space: BlockwiseSpace[Any], each: int) -> list[list[Any]]:
    """What the signal draws from one block, where nothing was shrunk."""
    chosen = choose_for_signal(space, each, seed=0, alive=None)
    return list(chosen[0].values()) if chosen else []
