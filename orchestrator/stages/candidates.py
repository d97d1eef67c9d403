"""What scores a phase's candidates: a supernet's weights as they are, on text or on a task, or a short training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import EvaluatorFactory, RankBy
from orchestrator.evaluation.training_evaluator import TrainingEvaluatorFactory
from orchestrator.formatting import plural
from orchestrator.phases import Outputs, Phase
from orchestrator.plan import CORE_FLOPS_PER_SECOND
from orchestrator.recipe import Recipe, signature
from orchestrator.recipe.finetuning import kind_problem
from orchestrator.recipe.phases import CandidateTrainingSettings
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.evaluators import evaluator_factory, trial_size, typical_flops
from orchestrator.stages.joint_tuning import judging_task
from orchestrator.stages.oneshot import one_shot_settings
from orchestrator.stages.oneshot_task import searched_task, task_scorer
from orchestrator.stages.schemes import is_layerwise
from orchestrator.stages.task_scoring import (
    check_task_scoring,
    held_out_texts,
    task_factory,
    task_scoring_facts,
    task_scoring_seconds,
)
from orchestrator.stages.task_teachers import check_imitated, tuned_teacher, tuning_facts
from orchestrator.stages.training import teacher_flops
from orchestrator.stages.tuning import task_source, tuning_settings
from trainers.candidate_training import CandidateSettings, CandidateTaskSource
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.slices import TrainSlices

CANDIDATES_PER_SECOND = 10.0
"""What plans assume of one actor that scores by a supernet's weights; only an order of magnitude."""

_SECONDS_A_CANDIDATE = 1.0
"""What plans assume that a training takes besides its steps: building and judging."""

_CHANGES_NO_RESULT = "company"


def candidate_factory(plan: RunPlan, phase: Phase) -> EvaluatorFactory:
    """The factory of what scores a phase's candidates."""
    recipe, search, folder = plan.recipe, plan.recipe.search, plan.folder
    threads = max(1, int(search.cpus_per_actor))
    training = phase.training
    if training is None:
        return factory_without_training(plan, phase, threads, search.rank_by)
    return TrainingEvaluatorFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.corpus,
        validation_folder=folder.validation,
        weights=phase.weights(folder),
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        settings=candidate_settings(recipe, training),
        batches=search.validation_batches,
        batch_size=search.batch_size,
        task=candidate_task(recipe, folder, training),
        device="cuda" if search.gpus_per_actor > 0 else "cpu",
        threads=threads,
    )


def factory_without_training(
    plan: RunPlan, phase: Phase, threads: int, rank_by: RankBy = "hidden_states"
) -> EvaluatorFactory:
    """The factory of what scores networks by the weights that a phase's supernet has: on text or, once tuned, a task.

    Args:
        plan: of the run.
        phase: whose supernet scores, whether or not the phase itself has candidates trained.
        threads: of a processor; 0 leaves PyTorch's setting.
        rank_by: with ``masked_lm``, the masked-LM loss on text is measured, too.
    """
    if phase.task_tuning is not None:
        return task_factory(plan, phase, phase.task_tuning, threads)
    task = searched_task(plan.recipe)
    if task is not None:
        settings, folder = one_shot_settings(plan.recipe), phase.weights(plan.folder).parent
        return task_scorer(plan, task, settings, folder, threads)
    search, weights = plan.recipe.search, phase.weights(plan.folder)
    return evaluator_factory(
        plan.recipe, plan.folder, search.validation_batches, search.batch_size, threads, rank_by, weights
    )


def scored_by(phase: Phase, outputs: Outputs) -> str:
    """What the column ``supernet_signature`` says of a phase's scores; losses are comparable where it is the same.

    It is the signature of the stage that left the weights or, where more decides than these, a hash of that and of how.
    """
    weights, facts = str(outputs[phase.weights_stage]["signature"]), scoring_facts(phase)
    return signature(weights, *facts) if facts else weights


def scored_candidates(context: RunContext, phase: Phase) -> pd.DataFrame:
    """Every whole network that a search had scored at full fidelity, once, the best first (see ``search.rank_by``).

    Args:
        context: of a stage after that search.
        phase: which search; where a run has no phases, whoever had the run's supernet score a network counts, too.
    """
    frame = open_results(context.folder.results).frame("evaluations")
    scored = frame[
        (frame["scope"] == "network")
        & (frame["status"] == "ok")
        & (frame["supernet_signature"] == scored_by(phase, context.outputs))
        & (frame["fidelity"] == phase.fidelity)
    ]
    if phase.name:
        scored = scored[scored["phase"] == phase.name]
    column = "masked_lm_loss" if context.recipe.search.rank_by == "masked_lm" else "loss"
    ranked: pd.DataFrame = scored.dropna(subset=column).sort_values([column, "arch_id"]).drop_duplicates("arch_id")
    return ranked


def scoring_facts(phase: Phase) -> Sequence[Any]:
    """Plain values that decide what becomes of a candidate that is trained or judged by a task, besides the weights."""
    recipe, training = phase.recipe, phase.training
    if phase.task_tuning is not None:
        return task_scoring_facts(phase.task_tuning)
    if phase.searched_by_task:
        section = recipe.supernet.one_shot
        return section.task, section.held_out_share
    if training is None:
        return ()
    facts = asdict(candidate_settings(recipe, training))
    del facts[_CHANGES_NO_RESULT]
    if training.task is None:
        return facts, recipe.search.validation_batches, recipe.search.batch_size
    task = find_task(training.task)
    data = task_source(recipe.finetuning).fingerprint(task)
    told = facts, training.task, training.task_teacher, training.training_share, training.held_out_share, data
    return (*told, *tuning_facts(recipe, [task])) if training.tunes_teacher else told


def candidate_settings(recipe: Recipe, training: CandidateTrainingSettings) -> CandidateSettings:
    """The trainers' view of the recipe's section."""
    return CandidateSettings(
        warm_up_steps=training.steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        warmup_share=training.warmup_share,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip or 0.0,
        seed=recipe.seed,
        precision=training.precision,
        padding=training.layer_padding,
        scale=training.layer_scale,
        start=training.start,
        fidelities=training.fidelities,
        company=training.company,
        tuning=_tuning(recipe, training),
    )


def _tuning(recipe: Recipe, training: CandidateTrainingSettings) -> FineTuningSettings | None:
    if training.task is None:
        return None
    own = training.tuning
    return replace(
        tuning_settings(recipe.finetuning),
        epochs=own.epochs,
        batch_size=own.batch_size,
        learning_rate=own.learning_rate,
        warmup_share=own.warmup_share,
    )


def candidate_task(
    recipe: Recipe, folder: RunDirectory, training: CandidateTrainingSettings
) -> CandidateTaskSource | None:
    """The task that candidates are tuned and judged on, if there is one; with its teacher, if it has one."""
    if training.task is None:
        return None
    task, teacher = find_task(training.task), training.task_teacher
    return CandidateTaskSource(
        task,
        task_source(recipe.finetuning),
        TrainSlices(training.training_share, training.held_out_share),
        str(tuned_teacher(recipe, folder, task)) if training.tunes_teacher else teacher,
    )


def check_scoring(plan: RunPlan, phase: Phase) -> None:
    """Make sure that a phase's candidates can be scored as it says.

    Raises:
        UserError: they cannot.
        TrainingInputError: the task's data does not fit.
    """
    training, recipe = phase.training, plan.recipe
    if phase.task_tuning is not None:
        check_task_scoring(plan, phase)
    if training is None:
        return
    if not is_layerwise(plan.space):
        raise UserError(
            f"{phase.key}.score: found training, which compares candidates with the teacher layer by layer, but the "
            f"supernet of '{recipe.space.name}' does not say its layers' states; expected score: supernet, or a space "
            f"such as efficient_bert"
        )
    if recipe.search.rank_by != "hidden_states":
        raise UserError(
            f"search.rank_by: found {recipe.search.rank_by}, but {phase.key} scores by training, after which no token "
            f"is predicted; expected hidden_states"
        )
    if training.task is not None:
        if problem := kind_problem(training.task):
            raise UserError(f"{phase.key}.training.task: {problem}")
        task_source(recipe.finetuning).check(find_task(training.task))
    if training.tunes_teacher:
        check_imitated(recipe, f"{phase.key}.training.task_teacher", "or leave task_teacher")


def trial_size_of(plan: RunPlan, phase: Phase, evaluations: int, window: int) -> int:
    """Candidates of a trial: what the recipe says, or by arithmetic where it says ``auto``.

    Args:
        plan: of the run.
        phase: of the candidates.
        evaluations: of the search.
        window: batches under way at once.
    """
    recipe, search = plan.recipe, plan.recipe.search
    if phase.training is None or search.candidates_per_trial != "auto":
        return trial_size(recipe, plan.space, evaluations, window, _task_texts(phase))
    return max(1, min(phase.training.company, evaluations // (2 * window)))


def _task_texts(phase: Phase) -> tuple[int, int] | None:
    """Rows of a task that each candidate is scored on, and their typical length; ``None`` where none does."""
    recipe, section = phase.recipe, phase.task_tuning
    if section is not None:
        return held_out_texts(recipe, judging_task(section), section.held_out_share)
    task = searched_task(recipe) if phase.searched_by_task else None
    return None if task is None else held_out_texts(recipe, task, recipe.supernet.one_shot.held_out_share)


def scoring_seconds(plan: RunPlan, phase: Phase, evaluations: int) -> float:
    """Roughly how long the actors take; where a task is tuned on, that is not counted: nobody has read it yet."""
    search, shape, length = plan.recipe.search, plan.shape, plan.recipe.corpus.sequence_length
    training = phase.training
    texts = _task_texts(phase)
    if texts is not None:
        return task_scoring_seconds(plan, texts, evaluations)
    if training is None:
        return evaluations / (CANDIDATES_PER_SECOND * search.actors)
    flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
    sequence = flops / training.company + 3 * typical_flops(plan.space, length)
    cores = max(1.0, search.cpus_per_actor)
    each = _SECONDS_A_CANDIDATE + training.steps * training.batch_size * sequence / (CORE_FLOPS_PER_SECOND * cores)
    return math.ceil(evaluations / search.actors) * each


def scoring_words(phase: Phase) -> str:
    """What a plan says of the scoring of a phase's candidates, ahead of their noun."""
    training = phase.training
    if phase.task_tuning is not None:
        share = f"the last {100 * phase.task_tuning.held_out_share:g} % of {phase.task_tuning.judge}'s training rows"
        return f"score, by the tuned supernet on {share},"
    if phase.searched_by_task:
        section = phase.recipe.supernet.one_shot
        return f"score, on the last {100 * section.held_out_share:g} % of {section.task}'s training rows,"
    if training is None:
        own = ", by a supernet of the phase's own," if phase.trains_supernet else ""
        return f"score{own}"
    tuned = "" if training.task is None else f", tune them on {training.task} (whose time is not counted)"
    return f"train each for {plural(training.steps, 'step')}{tuned} and judge them,"
