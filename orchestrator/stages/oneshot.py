"""Training a supernet together with its sampling distribution (Finding Fast Transformers) as a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.storage import sha256_of_file, write_atomically
from orchestrator.errors import UserError
from orchestrator.finetuning.estimate import typical_tokens
from orchestrator.formatting import percent, plural
from orchestrator.latency_table import LatencyTable
from orchestrator.latency_table.reliability import warn_if_unreliable
from orchestrator.limits import no_prediction
from orchestrator.phases import FOUND, SUPERNET
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.sources import TUNED
from orchestrator.run_directory import DISTRIBUTION_FILE, HEADS_FILE, SUPERNET_FILE
from orchestrator.run_space import start_folder
from orchestrator.stages.base import RunContext, RunPlan, StageResult
from orchestrator.stages.oneshot_task import (
    check_task_search,
    keep_task_model,
    searched_task,
    task_search_factory,
    task_search_facts,
)
from orchestrator.stages.task_teachers import TASK_TEACHERS
from orchestrator.stages.training import estimated_seconds, optimiser_settings, teacher_flops, train
from orchestrator.stages.tuning import lasting_settings
from spaces.architecture import Architecture
from spaces.sampled_space import CostName, LatencyPrices, SampledSpace
from trainers.oneshot import OneShotFactory, distribution_tensors, named_cost, supernet_tensors
from trainers.oneshot_settings import OneShotSettings
from trainers.oneshot_start import StudentStart
from trainers.task import WEIGHTS, TaskFactory
from trainers.tasks.oneshot_task import head_tensors


def one_shot_settings(recipe: Recipe) -> OneShotSettings:
    """The trainers' view of the sections ``supernet`` and ``supernet.oneshot``.

    Raises:
        TrainingInputError: values contradict each other.
    """
    training, section = recipe.supernet, recipe.supernet.one_shot
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
        TrainingInputError: there are too few paths to compare, or too few sequences for them; or the student that is
            to be started at does not compare with the teacher.
    """
    training = plan.recipe.supernet
    if training.init != "teacher":
        raise UserError(
            f"supernet.init: found {training.init}, expected teacher: a one-shot search in the space "
            f"'{plan.recipe.space.name}' starts at a trained network, most of which it keeps"
        )
    because = no_prediction(plan.recipe, plan.space) if needs_prices(plan.recipe) else None
    if because is not None:
        raise UserError(f"supernet.oneshot.cost: found latency_ms, but {because}; expected flops or parameters else")
    task = searched_task(plan.recipe)
    if task is not None:
        check_task_search(plan, task)
    settings, start = one_shot_settings(plan.recipe), start_folder(plan.recipe)
    settings.check_paths(training.scaling.workers)
    if start is not None:
        length = plan.recipe.corpus.sequence_length
        StudentStart(start).check(plan.shape, length, between=settings.intermediate_weight > 0)


def planned_one_shot(plan: RunPlan) -> PlannedStage:
    """Steps and tokens are exact; time is a rough estimate."""
    recipe, shape, task = plan.recipe, plan.shape, searched_task(plan.recipe)
    length = recipe.corpus.sequence_length
    if task is not None:
        length = typical_tokens(task, lasting_settings(recipe.finetuning))
    training, section, settings = recipe.supernet, recipe.supernet.one_shot, one_shot_settings(recipe)
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    passes = settings.paths if settings.same_text else 1
    frozen = training.steps - settings.frozen_from
    work = (
        f"train the supernet and the distribution of its paths together ({section.estimator}, lambda "
        f"{section.cost_weight:g} on {section.cost}): {plural(settings.warm_up_steps, 'step')} of warm-up, "
        f"{settings.search_steps:,} of search, {frozen:,} at the frozen architecture, {settings.paths} paths a step on "
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


def training_inputs(plan: RunPlan) -> tuple[str, ...]:
    """The stages that a training builds on: teacher, text or tuned teachers, and the latency table where it counts."""
    section = plan.recipe.supernet.one_shot
    text = (TASK_TEACHERS,) if section.task is not None and section.task_teacher == TUNED else ("corpus",)
    return ("teacher", *text, *(("latency",) if needs_prices(plan.recipe) else ()))


def training_facts(plan: RunPlan, **changes: Any) -> list[Any]:
    """What a training's result depends on, besides its inputs: the recipe's space and supernet, and the seed.

    Args:
        plan: of the run.
        changes: of the section ``supernet.oneshot``, for what does not count.
    """
    training = plan.recipe.supernet
    section = training.one_shot.model_copy(update={"sweep": (), **changes})  # trainings of a stage of their own
    start, files = start_folder(plan.recipe), {}
    if start is not None and start.is_dir():  # the weights decide, wherever they lie
        files = {file.name: sha256_of_file(file) for file in sorted(start.glob("*.safetensors"))}
        section = section.model_copy(update={"start": None})
    task = searched_task(plan.recipe)
    told: list[Any] = [*([files] if files else []), *([] if task is None else task_search_facts(plan, task))]
    return [plan.recipe.space, training.model_copy(update={"oneshot": section}), plan.recipe.seed, *told]


def one_shot_factory(context: RunContext, cost_weight: float | None = None) -> TaskFactory:
    """What makes the workers' tasks.

    Args:
        context: of the stage.
        cost_weight: lambda; ``None``: the recipe's first.
    """
    recipe, folder, settings = context.recipe, context.folder, one_shot_settings(context.recipe)
    if cost_weight is not None:
        settings = replace(settings, cost_weight=cost_weight)
    task = searched_task(recipe)
    if task is not None:
        return task_search_factory(context, task, settings, _cost(context))
    return OneShotFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.corpus,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        settings=settings,
        start=start_folder(recipe),
        cost=_cost(context),
    )


def train_one_shot(context: RunContext, progress: StageProgress) -> StageResult:
    """Train, or go on training; keep the weights, the distribution and the architecture it has come to."""
    folder, start = context.folder, start_folder(context.recipe)
    if needs_prices(context.recipe):
        warn_if_unreliable(LatencyTable.from_json(context.outputs["latency"]["latency_table"]), progress.message)
    if start is not None:
        folder.start.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.start / "config.json", (start / "config.json").read_text(encoding="utf-8"))
    checkpoint = train(context, SUPERNET, context.recipe.supernet, one_shot_factory(context), progress)
    folder.alive.unlink(missing_ok=True)  # of a run in another space
    tensors = load_file(checkpoint / WEIGHTS)
    keep_found(tensors, folder.supernet_weights.parent)
    found, share = found_architecture(context, tensors)
    task = searched_task(context.recipe)
    if task is not None:
        settings = one_shot_settings(context.recipe)
        kept = keep_task_model(context, task, settings, found, folder.supernet_weights.parent)
        progress.message(f"what was found, with its head for {task.name}: {kept}")
    told = f"{found}  {told_share(context.recipe, share)}"
    progress.message(f"one-shot search: {told}")
    return StageResult(f"{progress.done} steps; found {told}", {"steps": progress.done, FOUND: str(found)})


def found_architecture(context: RunContext, tensors: Mapping[str, Tensor]) -> tuple[Architecture, float]:
    """What a training has come to, and what it costs as a share of the largest architecture's cost.

    Args:
        context: of the stage.
        tensors: of the training's last checkpoint.
    """
    space: Any = context.space
    assert isinstance(space, SampledSpace)
    distribution = space.distribution()
    distribution.load_state_dict(distribution_tensors(tensors))
    found: Architecture = distribution.most_likely()
    cost = named_cost(space, _cost(context), context.recipe.corpus.sequence_length)
    return found, cost.of(found) / cost.of(space.largest())


def told_share(recipe: Recipe, share: float) -> str:
    """A share of the largest architecture's cost in words."""
    unit = {"latency_ms": "predicted latency", "flops": "FLOPs", "parameters": "weights behind the embeddings"}
    return f"{percent(share)} of the largest architecture's {unit[recipe.supernet.one_shot.cost]}"


def needs_prices(recipe: Recipe) -> bool:
    """Whether a one-shot search of a run would make latency cheaper, by its prices on the device."""
    return recipe.supernet.one_shot.cost == "latency_ms"


def _cost(context: RunContext) -> CostName | LatencyPrices:
    """What the search makes cheaper; prices of latency are those of the run's table."""
    cost = context.recipe.supernet.one_shot.cost
    if cost != "latency_ms":
        return cost
    marginals = LatencyTable.from_json(context.outputs["latency"]["latency_table"]).marginals
    assert marginals is not None, "the stage was checked, and its table has no prices"
    return marginals.fitted


def keep_found(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put what a training has learnt where later stages look for it, each file whole or not at all.

    That is its weights, its distribution and, where it learnt a task, its head.

    Args:
        tensors: of the training's last checkpoint.
        folder: made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        SUPERNET_FILE: supernet_tensors(tensors),
        DISTRIBUTION_FILE: distribution_tensors(tensors),
        HEADS_FILE: head_tensors(tensors),
    }
    for name, part in parts.items():
        if part:
            write_atomically(folder / name, partial(save_file, part))
        else:
            (folder / name).unlink(missing_ok=True)  # of a training under other settings
