"""The stage that measures the tables: latency of every part on this device, loss of block architectures."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence
from typing import Any

from cluster.device import describe_device
from orchestrator.errors import UserError
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.latency_table import LatencyConditions, LatencyTable, measure_part
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace, SearchSpace
from trainers.precision import Precision

LATENCY_PRECISION: Precision = "float32"
"""Latency is measured in the format that exports are stored and loaded in."""


def latency_conditions(context: RunContext, repeats: int | None = None) -> LatencyConditions:
    """The recipe's conditions of latency measurements, on the driver's device."""
    settings = context.recipe.tables.latency
    return LatencyConditions(
        settings.batch_size,
        settings.sequence_length,
        settings.threads,
        settings.warm_up,
        settings.repeats if repeats is None else repeats,
        context.device,
    )


def latency_row(conditions: LatencyConditions) -> dict[str, Any]:
    """The columns of the ``latency`` table that say how a latency was measured."""
    return {
        "batch_size": conditions.batch_size,
        "sequence_length": conditions.sequence_length,
        "device": describe_device(conditions.device).name,
        "threads": conditions.threads if conditions.device == "cpu" else None,
        "dtype": LATENCY_PRECISION,
    }


def evaluator_factory(context: RunContext, batches: int, batch_size: int, threads: int) -> SupernetEvaluatorFactory:
    """The factory of evaluators that hold this run's supernet."""
    recipe, folder = context.recipe, context.folder
    return SupernetEvaluatorFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.validation,
        weights=folder.supernet_weights,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        batches=batches,
        batch_size=batch_size,
        precision=recipe.supernet.precision,
        device="cuda" if recipe.search.gpus_per_actor > 0 else "cpu",
        threads=threads,
    )


class LatencyStage(Stage):
    """Measures what each part of the space costs on this device."""

    name = "latency"
    inputs = ("teacher",)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and conditions, and the device."""
        return [plan.recipe.space, plan.recipe.tables.latency, describe_device("cpu").name]

    def check(self, plan: RunPlan) -> None:
        """The measured sequences fit the teacher's positions."""
        length = plan.recipe.tables.latency.sequence_length
        if length > plan.shape.max_positions:
            raise UserError(
                f"tables.latency.sequence_length: found {length}, but the teacher has only {plan.shape.max_positions} "
                f"positions"
            )

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One measurement a part."""
        settings, parts = plan.recipe.tables.latency, len(plan.space.parts())
        work = (
            f"measure {parts} parts, batch {settings.batch_size} × {settings.sequence_length} tokens, "
            f"{settings.threads} thread(s), {settings.repeats} repeats"
        )
        return PlannedStage(self.name, "run", work, seconds=parts * settings.repeats * 0.012)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Measure part by part."""
        conditions, space = latency_conditions(context), context.space
        parts = space.parts()
        progress.follow(len(parts), "parts")
        entries = {}
        shared = latency_row(conditions)
        for part in parts:
            entries[part] = measured = measure_part(space, part, conditions, context.plan.shape.vocab_size)
            context.results.append(
                "latency",
                kind=part.kind,
                operation=part.name,
                hidden_size=part.size,
                input_size=part.input_size,
                median_ms=measured.median_ms,
                spread_ms=measured.spread_ms,
                repeats=measured.repeats,
                **shared,
            )
            progress.advance()
        table = LatencyTable(entries)
        return StageResult(f"{len(parts)} parts on {shared['device']}", {"latency_table": table.to_json()})


class BlockLossStage(Stage):
    """Measures the loss of sampled architectures of every block, fed with the teacher's states."""

    name = "block_losses"
    inputs = ("supernet",)

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
        evaluator = evaluator_factory(context, tables.block_batches, recipe.search.batch_size, threads=0)()
        each = min(tables.block_architectures, space.block_cardinality())
        progress.follow(each * space.num_blocks, "block architectures")
        rng = random.Random(f"{recipe.seed}/block table")
        for index in range(space.num_blocks):
            sampled: dict[Architecture, None] = {}
            while len(sampled) < each:
                sampled[space.sample_block(rng)] = None
            for block in sampled:
                score = evaluator.score_block(index, block, tables.block_batches)
                cost = space.block_cost(block, recipe.corpus.sequence_length)
                context.results.append(
                    "evaluations",
                    arch_id=block.arch_id,
                    architecture=str(block),
                    genes=space.block_genes(block),
                    scope="block",
                    block=index,
                    strategy="sampled",
                    status=score.status,
                    supernet_signature=context.outputs["supernet"]["signature"],
                    fidelity=tables.block_batches,
                    loss=score.loss,
                    parameters=cost.parameters,
                    encoder_parameters=cost.encoder_parameters,
                    flops=cost.flops,
                    seconds=score.seconds,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    error=score.error,
                )
                progress.advance()
        return StageResult(f"{each} architectures of each of {space.num_blocks} blocks")


def _blockwise(space: SearchSpace[Any]) -> BlockwiseSpace[Any]:
    if not isinstance(space, BlockwiseSpace):
        raise UserError(f"space.name: '{space.name}' is not a space of blocks; set tables.block_architectures: 0")
    return space
