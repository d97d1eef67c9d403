"""The stage that trains the supernet on Ray Train by the scheme that fits it, and shrinks it where the recipe says so.

A supernet of blocks learns block by block (:mod:`trainers.blockwise`), one that says its layers' states as a whole, by
comparing them (:mod:`trainers.warm_up`). A phase of the search can have one of its own: the main one, trained on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.resources import ResourceRequest
from cluster.storage import readable_bytes, write_atomically
from orchestrator.errors import UserError
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.phases import SUPERNET, Phase
from orchestrator.plan import CORE_FLOPS_PER_SECOND, PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.phases import PhaseSupernetSettings
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.inheritance import inherited_weights
from orchestrator.stages.shrinking_view import ShrinkingView
from orchestrator.stages.training import (
    estimated_seconds,
    optimiser_settings,
    remove_checkpoints,
    resources,
    teacher_flops,
    train,
    training_name,
)
from orchestrator.stages.warm_up import check_own_supernet, check_scheme, planned_warm_up, warm_up_factory
from spaces.space import BlockwiseSpace
from trainers.blockwise import BlockwiseFactory, BlockwiseSettings
from trainers.population import RemovalRules, check_enumerable
from trainers.shrinking import ShrinkingSettings, alive_in_checkpoint, save_alive
from trainers.task import WEIGHTS
from trainers.teacher_states import cache_bytes

_SCHEDULE = "the learning rate falls to zero by the last round"
"""What of a training that ends with its shrinking is not said by the recipe; part of its signature."""


_LAYERWISE_START = "a layer-wise supernet starts at the teacher"
"""What the recipe says by its default since such a start is there; before, those supernets started at random."""


class SupernetStage(Stage):
    """Trains the supernet against the teacher's hidden states.

    Args:
        phase: of the search whose own supernet it is; ``None`` for the main one.
    """

    name = SUPERNET
    resumable = True
    version = 2
    inputs = ("teacher", "corpus")

    def __init__(self, phase: Phase | None = None) -> None:
        self.phase = phase
        if phase is not None:
            self.name = phase.supernet_stage

    @property
    def _own(self) -> PhaseSupernetSettings | None:
        """What the phase says of its supernet; ``None`` for the main one."""
        return None if self.phase is None or self.phase.settings is None else self.phase.settings.supernet

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """The latency table too, where shrinking sorts out by it; without it, a new device trains nothing again.

        A phase's supernet begins with the main one, and learns in the space that the winner before it left.
        """
        if self.phase is not None:
            return (*self.inputs, SUPERNET, *self.phase.builds_on)
        return (*self.inputs, "latency") if _needs_latency(plan.recipe) else self.inputs

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and supernet, the seed, the weights it inherits, and what the recipe does not say."""
        if self.phase is not None and self._own is not None:
            own = self._own.model_copy(update={"tuning": None})  # a stage of its own
            return [plan.recipe.space, own, list(self.phase.keep), plan.recipe.seed]
        settings = plan.recipe.supernet
        unsaid = [_SCHEDULE] if settings.shrinking is not None and settings.shrinking.stop_when_done else []
        if settings.inherit is not None:  # the weights decide, wherever they lie
            unsaid.append(inherited_weights(settings.inherit))
            settings = settings.model_copy(update={"inherit": None})
        elif settings.init == "teacher" and not isinstance(plan.space, BlockwiseSpace):
            unsaid.append(_LAYERWISE_START)
        return [plan.recipe.space, settings, plan.recipe.seed, *unsaid]

    def check(self, plan: RunPlan) -> None:
        """The space's supernet can be trained, start as the recipe says, and be shrunk if it shall be."""
        if self.phase is not None:
            check_own_supernet(plan, f"{self.phase.key}.supernet")
            return
        check_scheme(plan)
        space, shrinking = plan.space, plan.recipe.supernet.shrinking
        if not isinstance(space, BlockwiseSpace):
            return
        space.check_start(plan.recipe.supernet.init)
        if plan.recipe.supernet.shared_layers:
            check_enumerable(space, "supernet.shared_layers")
        if shrinking is not None:
            architectures, kept = space.block_cardinality(), shrinking.bins * shrinking.keep
            if kept >= architectures:
                raise UserError(
                    f"supernet.shrinking.keep: found {shrinking.keep} in each of {shrinking.bins} bins, but a block of "
                    f"the space has only {architectures:,} architectures, so none might go; expected keep × bins below "
                    f"that: lower either, or set supernet.shrinking: null"
                )
            settings = shrinking_settings(plan.recipe, None)
            assert settings is not None
            settings.sorted_out(space)  # raises where the space cannot be enumerated

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the workers need of the cluster."""
        own = self._own
        if self.phase is None or own is None:
            return resources(self.name, plan.recipe.supernet)
        return resources(f"{self.phase.key}.supernet", own)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Steps and tokens are exact, rounds and their evaluations the most there can be; time is a rough estimate."""
        recipe, shape, space = plan.recipe, plan.shape, plan.space
        if self._own is not None:
            return planned_warm_up(plan, self.name, self._own, "train the supernet on in the space of the phase,")
        if not isinstance(space, BlockwiseSpace):
            start = f"{recipe.supernet.init} init" if recipe.supernet.inherit is None else "inherited weights"
            return planned_warm_up(plan, self.name, recipe.supernet, f"train the supernet ({start})")
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
        disk = self._cache_bytes(plan)
        if disk:
            work += f", the teacher's states kept in {settings.teacher_cache} ({readable_bytes(disk)})"
        elif settings.teacher_cache != "off":
            work += ", the teacher's states not kept: no text is seen twice"
        tokens = settings.steps * settings.batch_size * length
        return PlannedStage(
            self.name,
            "run",
            work,
            steps=settings.steps,
            tokens=tokens,
            evaluations=evaluations,
            seconds=seconds,
            disk_bytes=disk or None,
        )

    @staticmethod
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

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Train, or go on training, and keep the weights, and who survived."""
        if self.phase is not None or not isinstance(context.space, BlockwiseSpace):
            return self._warm_up(context, progress)
        recipe, folder = context.recipe, context.folder
        settings = recipe.supernet
        table = None
        if _needs_latency(recipe):
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
            cache_folder=folder.training / f"{training_name(context, self.name)}-states",
        )
        view = ShrinkingView(progress, shrinking.rules.keep) if shrinking is not None else None
        checkpoint = train(context, self.name, settings, factory, progress, on_table=view.see if view else None)
        survivors = self._keep_survivors(checkpoint, folder.alive)
        _keep_weights(checkpoint, folder.supernet_weights)
        steps = progress.done
        if steps < settings.steps:  # by operations nobody knows beforehand
            progress.message(f"the training ended after {steps:,} of at most {settings.steps:,} steps: it is shrunk")
        detail = f"{steps} steps, {steps * settings.paths_per_step} paths a block{survivors}"
        return StageResult(detail, {"steps": steps})

    def _warm_up(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Train layer by layer: the main supernet as the recipe says it starts, a phase's from the main one."""
        own, folder = self._own, context.folder
        if self.phase is None or own is None:
            settings: SupernetSettings | PhaseSupernetSettings = context.recipe.supernet
            factory = warm_up_factory(context, settings)
            weights, recorded_as = folder.supernet_weights, ""
            folder.alive.unlink(missing_ok=True)  # of a run in another space
        else:
            settings = own
            factory = warm_up_factory(context, own, folder.supernet_weights, self.phase.narrowing(context.outputs))
            weights, recorded_as = self.phase.supernet_weights(folder), self.name
        checkpoint = train(context, self.name, settings, factory, progress, recorded_as)
        _keep_weights(checkpoint, weights)
        return StageResult(f"{progress.done} steps, {settings.architectures}", {"steps": progress.done})

    @staticmethod
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

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the weights, and who survived, are there."""
        if self.phase is not None:
            return self.phase.supernet_weights(plan.folder).is_file()
        shrunk = plan.recipe.supernet.shrinking is not None
        return plan.folder.supernet_weights.is_file() and (not shrunk or plan.folder.alive.is_file())


def _keep_weights(checkpoint: Path, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda partial: shutil.copyfile(checkpoint / WEIGHTS, partial))


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


def _needs_latency(recipe: Recipe) -> bool:
    shrinking = recipe.supernet.shrinking
    return shrinking is not None and shrinking.latency_rule != "none" and shrinking.latency_from == "table"


def _latencies(table: LatencyTable, context: RunContext) -> Any:
    """Of every block architecture: the sum of its operations, as in the paper, nothing fitted on top."""
    assert isinstance(context.space, BlockwiseSpace)
    return table.blocks_ms(context.space, remainder=False)
