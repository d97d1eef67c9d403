"""Training a supernet together with its sampling distribution (Finding Fast Transformers) as a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.formatting import percent, plural
from orchestrator.phases import FOUND, SUPERNET
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.oneshot import OneShotSettings as RecipeSettings
from orchestrator.stages.base import RunContext, RunPlan, StageResult
from orchestrator.stages.training import estimated_seconds, optimiser_settings, teacher_flops, train
from spaces.sampled_space import SampledSpace
from trainers.oneshot import OneShotFactory, distribution_tensors, supernet_tensors
from trainers.oneshot_settings import OneShotSettings
from trainers.task import WEIGHTS


def section_of(recipe: Recipe) -> RecipeSettings:
    """What the recipe says of the search; where it says nothing, the defaults."""
    return recipe.supernet.oneshot or RecipeSettings()


def one_shot_settings(recipe: Recipe) -> OneShotSettings:
    """The trainers' view of the sections ``supernet`` and ``supernet.oneshot``.

    Raises:
        TrainingInputError: values contradict each other.
    """
    training, section = recipe.supernet, section_of(recipe)
    warm_up, search = section.phase_steps(training.steps)
    return OneShotSettings(
        batch_size=training.batch_size,
        seed=recipe.seed,
        precision=training.precision,
        optimiser=optimiser_settings(training),
        warm_up_steps=warm_up,
        search_steps=search,
        estimator=section.estimator,
        paths=training.paths_per_step,
        same_text=section.same_text,
        cost_weight=section.cost_weight,
        ramp_steps=round(section.ramp_share * search),
        certainty=section.certainty,
        distribution_rate=section.distribution_rate,
        temperatures=(section.temperature, section.final_temperature),
        reuse=section.reuse,
        weight_limits=(section.least_weight, section.greatest_weight),
        intermediate_weight=section.intermediate_weight,
        order=section.order,
    )


def check_one_shot(plan: RunPlan) -> None:
    """Make sure that the search can be run as the recipe says.

    Raises:
        UserError: the supernet is to start at random.
        TrainingInputError: there are too few paths to compare, or too few sequences for them.
    """
    training = plan.recipe.supernet
    if training.init != "teacher":
        raise UserError(
            f"supernet.init: found {training.init}, expected teacher: a one-shot search in the space "
            f"'{plan.recipe.space.name}' starts at a trained network, most of which it keeps"
        )
    one_shot_settings(plan.recipe).check_paths(training.scaling.workers)


def planned_one_shot(plan: RunPlan) -> PlannedStage:
    """Steps and tokens are exact; time is a rough estimate."""
    recipe, shape, length = plan.recipe, plan.shape, plan.recipe.corpus.sequence_length
    training, section, settings = recipe.supernet, section_of(recipe), one_shot_settings(recipe)
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    passes = settings.paths if settings.same_text else 1
    frozen = training.steps - settings.frozen_from
    work = (
        f"train the supernet and the distribution of its paths together ({section.estimator}, lambda "
        f"{section.cost_weight:g} on {section.cost}): {settings.warm_up_steps} steps of warm-up, "
        f"{settings.search_steps} of search, {frozen} at the frozen architecture, {settings.paths} paths a step on "
        f"{plural(training.scaling.workers, 'worker')}"
    )
    return PlannedStage(
        SUPERNET,
        "run",
        work,
        steps=training.steps,
        tokens=training.steps * training.batch_size * length,
        seconds=estimated_seconds(training, flops * (1 + 3.0 * passes)),
    )


def train_one_shot(context: RunContext, progress: StageProgress) -> StageResult:
    """Train, or go on training; keep the weights, the distribution and the architecture it has come to."""
    recipe, folder, section = context.recipe, context.folder, section_of(context.recipe)
    factory = OneShotFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.corpus,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        settings=one_shot_settings(recipe),
        cost="parameters" if section.cost == "parameters" else "flops",
    )
    checkpoint = train(context, SUPERNET, recipe.supernet, factory, progress)
    folder.alive.unlink(missing_ok=True)  # of a run in another space
    tensors = load_file(checkpoint / WEIGHTS)
    _save(supernet_tensors(tensors), folder.supernet_weights)
    learned = distribution_tensors(tensors)
    _save(learned, folder.distribution)
    space: Any = context.space
    assert isinstance(space, SampledSpace)
    distribution = space.distribution()
    distribution.load_state_dict(learned)
    found = distribution.most_likely()
    cost = space.expected_cost("flops", recipe.corpus.sequence_length)
    share = cost.of(found) / cost.of(space.largest())
    progress.message(f"one-shot search: {found}  {percent(share)} of the largest architecture's FLOPs")
    detail = f"{progress.done} steps; found {found}, {percent(share)} of the largest architecture's FLOPs"
    return StageResult(detail, {"steps": progress.done, FOUND: str(found)})


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda partial: save_file(tensors, partial))
