"""Training a layer-wise supernet (EfficientBERT's) as a stage: what is checked, planned and run."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.formatting import plural
from orchestrator.plan import PlannedStage
from orchestrator.recipe.phases import PhaseSupernetSettings
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.inheritance import check_inherited, inherited_run
from orchestrator.stages.schemes import scheme_of
from orchestrator.stages.training import estimated_seconds, optimiser_settings, teacher_flops
from spaces.narrowing import Narrowing
from trainers.warm_up import WarmUpFactory, WarmUpSettings, check_layerwise

SUPERNET_SHARE = 3.0
"""A step of the student as multiples of the teacher's forward pass, the student being about as large: there and back
again; only an order of magnitude."""


def check_layers(plan: RunPlan) -> None:
    """Make sure that supernet and teacher can be compared layer by layer, and that the start is there.

    Raises:
        UserError: nothing can be inherited as the recipe says.
        TrainingInputError: supernet and teacher cannot be compared.
        SpaceError: the supernet cannot start at this teacher.
    """
    settings = plan.recipe.supernet
    check_layerwise(plan.space, plan.recipe.space.name, plan.shape)
    if settings.inherit is None:
        plan.space.check_start(settings.init)
    else:
        check_inherited(plan, settings.inherit)


def check_own_supernet(plan: RunPlan, key: str) -> None:
    """Make sure that a phase of the search can train the main supernet on.

    Args:
        plan: of the run.
        key: where the recipe asks for it.

    Raises:
        UserError: the space's supernet is not trained layer by layer.
    """
    if scheme_of(plan.space, plan.recipe.space.name) != "layers":
        raise UserError(
            f"{key}: found a section, but the supernet of '{plan.recipe.space.name}' is not trained layer by layer; "
            f"expected null: the main supernet serves"
        )


def planned_warm_up(
    plan: RunPlan, stage: str, settings: SupernetSettings | PhaseSupernetSettings, work: str
) -> PlannedStage:
    """The plan of one training.

    Args:
        plan: of the run.
        stage: its name.
        settings: the recipe's section.
        work: what it does, in a few words.
    """
    shape, length = plan.shape, plan.recipe.corpus.sequence_length
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    turn = "the plain network" if settings.architectures == "largest" else "a drawn network"
    return PlannedStage(
        stage,
        "run",
        f"{work} layer by layer, {turn} each step, on {plural(settings.scaling.workers, 'worker')}",
        steps=settings.steps,
        tokens=settings.steps * settings.batch_size * length,
        seconds=estimated_seconds(settings, flops * (1 + SUPERNET_SHARE)),
    )


def warm_up_factory(
    context: RunContext,
    settings: SupernetSettings | PhaseSupernetSettings,
    start: Path | None = None,
    narrowing: Narrowing = Narrowing(),  # noqa: B008 - frozen
) -> WarmUpFactory:
    """What makes the workers' tasks.

    Args:
        context: of the stage.
        settings: the recipe's section.
        start: weights of a supernet of the same sizes to begin with; ``None``: the section says where it starts.
        narrowing: of the space whose architectures are drawn.
    """
    recipe, folder = context.recipe, context.folder
    start_options = None
    if start is None and recipe.supernet.inherit is not None:
        inherited = inherited_run(recipe.supernet.inherit)
        start, start_options = inherited.folder.supernet_weights, inherited.recipe.space.options
    return WarmUpFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.corpus,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        settings=WarmUpSettings(
            init=recipe.supernet.init,
            batch_size=settings.batch_size,
            seed=recipe.seed,
            precision=settings.precision,
            optimiser=optimiser_settings(settings),
            sampling=settings.architectures,
            padding=settings.layer_padding,
            scale=settings.layer_scale,
        ),
        start=start,
        start_options=start_options,
        narrowing=narrowing,
    )
