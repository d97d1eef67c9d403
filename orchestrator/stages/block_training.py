"""Training a supernet block by block, and shrinking it, as a stage: what is checked, planned and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.storage import readable_bytes
from orchestrator.errors import UserError
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.phases import SUPERNET
from orchestrator.plan import CORE_FLOPS_PER_SECOND, PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.stages.base import RunContext, RunPlan, StageResult
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.shrinking_view import ShrinkingView
from orchestrator.stages.training import (
    estimated_seconds,
    keep_weights,
    optimiser_settings,
    teacher_flops,
    train,
    training_name,
)
from spaces.space import BlockwiseSpace
from trainers.blockwise import BlockwiseFactory, BlockwiseSettings
from trainers.population import RemovalRules, check_enumerable
from trainers.shrinking import ShrinkingSettings, alive_in_checkpoint, save_alive
from trainers.teacher_states import cache_bytes


def check_blocks(plan: RunPlan) -> None:
    """Make sure that the supernet can start as the recipe says, and be shrunk if it shall be.

    Raises:
        UserError: nothing could be removed.
        SpaceError: the supernet cannot start at this teacher.
        TrainingInputError: the space cannot be enumerated.
    """
    settings, space = plan.recipe.supernet, plan.space
    assert isinstance(space, BlockwiseSpace)
    shrinking = settings.shrinking
    space.check_start(settings.init)
    if settings.shared_layers:
        check_enumerable(space, "supernet.shared_layers")
    if shrinking is None:
        return
    architectures, kept = space.block_cardinality(), shrinking.bins * shrinking.keep
    if kept >= architectures:
        raise UserError(
            f"supernet.shrinking.keep: found {shrinking.keep} in each of {shrinking.bins} bins, but a block of "
            f"the space has only {architectures:,} architectures, so none might go; expected keep × bins below "
            f"that: lower either, or set supernet.shrinking: null"
        )
    rules = shrinking_settings(plan.recipe, None)
    assert rules is not None
    rules.sorted_out(space)  # raises where the space cannot be enumerated


def planned_blocks(plan: RunPlan) -> PlannedStage:
    """Steps and tokens are exact, rounds and their evaluations the most there can be; time is a rough estimate."""
    recipe, shape, space = plan.recipe, plan.shape, plan.space
    assert isinstance(space, BlockwiseSpace)
    settings, length = recipe.supernet, recipe.corpus.sequence_length
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    seconds = estimated_seconds(settings, flops * (1 + 1.5 * settings.paths_per_step))
    work = (
        f"train the supernet ({settings.init} init) with {settings.paths_per_step} paths a teacher pass on "
        f"{plural(settings.scaling.workers, 'worker')}"
    )
    evaluations = None
    shrinking = shrinking_settings(recipe, None)
    if shrinking is not None:
        rounds = shrinking.evaluations_ahead(space, settings.steps)
        evaluations = sum(rounds)
        sequences = shrinking.validation_batches * shrinking.batch_size
        # sharing beginnings, an architecture costs about one operation and the map back to the teacher's width
        each = sequences * flops / (2 * shape.num_layers)
        cores = settings.scaling.workers * max(1.0, settings.scaling.cpus_per_worker)
        seconds += evaluations * each / (CORE_FLOPS_PER_SECOND * cores)
        work += f", shrunk in {plural(len(rounds), 'round')} at most"
        if shrinking.stop_when_done:
            work += ", with the last of which it ends"
    disk = _cache_bytes(plan)
    if disk:
        work += f", the teacher's states kept in {settings.teacher_cache} ({readable_bytes(disk)})"
    elif settings.teacher_cache != "off":
        work += ", the teacher's states not kept: no text is seen twice"
    tokens = settings.steps * settings.batch_size * length
    return PlannedStage(
        SUPERNET,
        "run",
        work,
        steps=settings.steps,
        tokens=tokens,
        evaluations=evaluations,
        seconds=seconds,
        disk_bytes=disk or None,
    )


def _cache_bytes(plan: RunPlan) -> int:
    """Size of the teacher's states on disk: exact once the corpus is packed, before that from the text's size."""
    settings, length = plan.recipe.supernet, plan.recipe.corpus.sequence_length
    rows = seen = settings.steps * settings.batch_size
    packed = plan.folder.corpus / "corpus.json"
    if packed.is_file():
        rows = json.loads(packed.read_text(encoding="utf-8"))["sequences"]
    elif (tokens := CorpusStage().planned(plan).tokens) is not None:
        rows = min(rows, -(-tokens // (length - 2)))  # every sequence has two tokens that are no text
    if packed.is_file() and seen <= rows:
        return 0
    blocks = getattr(plan.space, "num_blocks", 1)
    return cache_bytes(rows, blocks, length, plan.shape.hidden_size, settings.teacher_cache)


def train_blocks(context: RunContext, progress: StageProgress) -> StageResult:
    """Train, or go on training, and keep the weights, and who survived."""
    recipe, folder = context.recipe, context.folder
    settings = recipe.supernet
    table = None
    if needs_latency(recipe):
        table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
    shrinking = shrinking_settings(recipe, None if table is None else _latencies(table, context))
    if shrinking is not None:
        settings = _until_shrunk(settings, shrinking, context, progress)
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
            sampling=settings.sampling,
            shrinking=shrinking,
            teacher_cache=settings.teacher_cache,
            shared_layers=settings.shared_layers,
            mask_probability=settings.mask_probability,
        ),
        validation_folder=folder.validation,
        cache_folder=folder.training / f"{training_name(context, SUPERNET)}-states",
    )
    view = ShrinkingView(progress, shrinking.rules.keep) if shrinking is not None else None
    checkpoint = train(context, SUPERNET, settings, factory, progress, on_table=view.see if view else None)
    survivors = _keep_survivors(checkpoint, folder.alive)
    keep_weights(checkpoint, folder.supernet_weights)
    steps = progress.done
    if steps < settings.steps:  # by operations nobody knows beforehand
        progress.message(f"the training ended after {steps:,} of at most {settings.steps:,} steps: it is shrunk")
    detail = f"{steps} steps, {steps * settings.paths_per_step} paths a block{survivors}"
    return StageResult(detail, {"steps": steps})


def _keep_survivors(checkpoint: Path, file: Path) -> str:
    """Write who survived, where the supernet was shrunk; returns words about it."""
    alive = alive_in_checkpoint(checkpoint)
    if alive is None:
        file.unlink(missing_ok=True)  # of a training under other settings
        return ""
    save_alive(alive, file)
    counts = sorted(int(living.sum()) for living in alive)
    kept = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
    return f", {kept} of {len(alive[0]):,} architectures a block alive"


def shrinking_settings(recipe: Recipe, latencies_ms: Any) -> ShrinkingSettings | None:
    """The trainers' view of the recipe's section; ``None`` where nothing is shrunk.

    Args:
        recipe: of the run.
        latencies_ms: of each block architecture; ``None`` for FLOPs, also where the table is not measured yet.
    """
    section = recipe.supernet.shrinking
    if section is None:
        return None
    return ShrinkingSettings(
        rules=RemovalRules(
            section.evaluate, section.sample, section.remove, section.keep, section.by, section.operation_share
        ),
        steps_per_epoch=section.steps_per_epoch,
        warm_epochs=section.warm_epochs,
        bins=section.bins,
        latency_rule=section.latency_rule,
        latency_from=section.latency_from,
        latencies_ms=latencies_ms,
        sequence_length=recipe.corpus.sequence_length,
        validation_batches=section.validation_batches,
        batch_size=section.batch_size,
        stop_when_done=section.stop_when_done,
    )


def _until_shrunk(
    settings: SupernetSettings, shrinking: ShrinkingSettings, context: RunContext, progress: StageProgress
) -> SupernetSettings:
    """The section with the steps that shrinking leaves of it, so that the learning rate has fallen when it ends."""
    assert isinstance(context.space, BlockwiseSpace)
    last = shrinking.last_step(context.space, settings.steps)
    if last < settings.steps:
        progress.message(
            f"shrinking is over after {last:,} steps at the latest: the training, planned for up to "
            f"{settings.steps:,}, ends then, and its learning rate falls to zero by then"
        )
    warmup = settings.warmup_steps * last // settings.steps  # the same share of the training as planned
    return settings.model_copy(update={"steps": last, "warmup_steps": warmup})


def needs_latency(recipe: Recipe) -> bool:
    """Whether shrinking sorts out by the latency table."""
    shrinking = recipe.supernet.shrinking
    return shrinking is not None and shrinking.latency_rule != "none" and shrinking.latency_from == "table"


def _latencies(table: LatencyTable, context: RunContext) -> Any:
    """Of every block architecture: the sum of its operations, as in the paper, nothing fitted on top."""
    assert isinstance(context.space, BlockwiseSpace)
    return table.blocks_ms(context.space, remainder=False)
