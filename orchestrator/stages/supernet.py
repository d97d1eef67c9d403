"""The stage that trains the supernet on Ray Train by the scheme that fits it, and shrinks it where the recipe says so.

A supernet of blocks learns block by block (:mod:`trainers.blockwise`), one that says its layers' states as a whole, by
comparing them (:mod:`trainers.warm_up`), one whose space has a distribution together with that
(:mod:`trainers.oneshot`). A phase of the search can have one of its own: the main one, trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.phases import SUPERNET, Phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.phases import PhaseSupernetSettings
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.block_training import check_blocks, needs_latency, planned_blocks, train_blocks
from orchestrator.stages.inheritance import inherited_weights
from orchestrator.stages.oneshot import check_one_shot, needs_prices, planned_one_shot, train_one_shot, training_facts
from orchestrator.stages.schemes import Scheme, checked_scheme, scheme_of
from orchestrator.stages.training import keep_weights, remove_checkpoints, resources, train
from orchestrator.stages.warm_up import check_layers, check_own_supernet, planned_warm_up, warm_up_factory

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
        """The latency table too, where shrinking sorts out by it, or a one-shot search makes latency cheaper; without
        it, a new device trains nothing again.

        A phase's supernet begins with the main one, and learns in the space that the winner before it left.
        """
        if self.phase is not None:
            return (*self.inputs, SUPERNET, *self.phase.builds_on)
        needed = needs_prices(plan.recipe) if _scheme(plan) == "oneshot" else needs_latency(plan.recipe)
        return (*self.inputs, "latency") if needed else self.inputs

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and supernet, the seed, the weights it inherits, and what the recipe does not say."""
        if self.phase is not None and self._own is not None:
            own = self._own.model_copy(update={"tuning": None})  # a stage of its own
            return [plan.recipe.space, own, list(self.phase.keep), plan.recipe.seed]
        if _scheme(plan) == "oneshot":
            return training_facts(plan)
        settings = plan.recipe.supernet
        unsaid = [_SCHEDULE] if settings.shrinking is not None and settings.shrinking.stop_when_done else []
        if settings.inherit is not None:  # the weights decide, wherever they lie
            unsaid.append(inherited_weights(settings.inherit))
            settings = settings.model_copy(update={"inherit": None})
        elif settings.init == "teacher" and _scheme(plan) == "layers":
            unsaid.append(_LAYERWISE_START)
        return [plan.recipe.space, settings, plan.recipe.seed, *unsaid]

    def check(self, plan: RunPlan) -> None:
        """The space's supernet can be trained, start as the recipe says, and be shrunk if it shall be."""
        if self.phase is not None:
            check_own_supernet(plan, f"{self.phase.key}.supernet")
            return
        scheme = checked_scheme(plan)
        if scheme == "blocks":
            check_blocks(plan)
        elif scheme == "oneshot":
            check_one_shot(plan)
        else:
            check_layers(plan)

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the workers need of the cluster."""
        own = self._own
        if self.phase is None or own is None:
            return resources(self.name, plan.recipe.supernet)
        return resources(f"{self.phase.key}.supernet", own)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Steps and tokens are exact, time is a rough estimate."""
        settings = plan.recipe.supernet
        if self._own is not None:
            return planned_warm_up(plan, self.name, self._own, "train the supernet on in the space of the phase,")
        scheme = _scheme(plan)
        if scheme == "blocks":
            return planned_blocks(plan)
        if scheme == "oneshot":
            return planned_one_shot(plan)
        start = f"{settings.init} init" if settings.inherit is None else "inherited weights"
        return planned_warm_up(plan, self.name, settings, f"train the supernet ({start})")

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Train, or go on training, and keep the weights, and who survived or what was found."""
        scheme = _scheme(context.plan)
        if self.phase is not None or scheme == "layers":
            return self._warm_up(context, progress)
        return train_blocks(context, progress) if scheme == "blocks" else train_one_shot(context, progress)

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
        keep_weights(checkpoint, weights)
        return StageResult(f"{progress.done} steps, {settings.architectures}", {"steps": progress.done})

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the weights, and who survived, are there."""
        if self.phase is not None:
            return self.phase.supernet_weights(plan.folder).is_file()
        files = [plan.folder.supernet_weights]
        files += [plan.folder.alive] if plan.recipe.supernet.shrinking is not None else []
        files += [plan.folder.distribution] if _scheme(plan) == "oneshot" else []
        return all(file.is_file() for file in files)


def _scheme(plan: RunPlan) -> Scheme:
    return scheme_of(plan.space, plan.recipe.space.name)
