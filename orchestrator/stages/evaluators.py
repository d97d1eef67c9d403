"""What stages and commands make evaluators of a run's supernet with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import RankBy
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory, lacks_head
from orchestrator.evaluation.trial_size import candidates_per_trial
from orchestrator.recipe import Recipe
from orchestrator.run_directory import RunDirectory
from orchestrator.run_space import space_shape, start_folder
from spaces.encoder_shape import EncoderShape
from spaces.space import SearchSpace
from trainers.teacher import TeacherSource


def evaluator_factory(
    recipe: Recipe,
    folder: RunDirectory,
    batches: int,
    batch_size: int,
    threads: int,
    rank_by: RankBy = "hidden_states",
    weights: Path | None = None,
) -> SupernetEvaluatorFactory:
    """The factory of evaluators that hold a run's supernet.

    Args:
        recipe: of the run.
        folder: of the run.
        batches: validation batches to keep in memory.
        batch_size: sequences of a batch.
        threads: for forward passes on a processor; 0 leaves PyTorch's setting.
        rank_by: with ``masked_lm``, the masked-LM loss is measured, too.
        weights: of another supernet of the run's space; ``None``: of the main one.

    Raises:
        UserError: the masked-LM loss is to be measured, and the run's teacher has no masked-LM head.
    """
    if rank_by == "masked_lm" and not TeacherSource(str(folder.teacher)).has_masked_lm_head():
        raise UserError(f"search.rank_by: {lacks_head(rank_by, recipe.teacher.source)}")
    return SupernetEvaluatorFactory(
        teacher_folder=folder.teacher,
        corpus_folder=folder.validation,
        weights=weights or folder.supernet_weights,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        space_shape=None if start_folder(recipe) is None else _shape(recipe, folder),
        batches=batches,
        batch_size=batch_size,
        precision=recipe.supernet.precision,
        device="cuda" if recipe.search.gpus_per_actor > 0 else "cpu",
        threads=threads,
        mask_probability=recipe.distillation.mask_probability if rank_by == "masked_lm" else 0.0,
        seed=recipe.seed,
    )


def _shape(recipe: Recipe, folder: RunDirectory) -> EncoderShape:
    return space_shape(recipe, TeacherSource(str(folder.teacher)).shape(), folder)


def trial_size(
    recipe: Recipe, space: SearchSpace[Any], evaluations: int, window: int, texts: tuple[int, int] | None = None
) -> int:
    """Candidates of a trial: what the recipe says, or by arithmetic where it says ``auto``.

    Args:
        recipe: of the run.
        space: of the candidates.
        evaluations: of the search.
        window: batches under way at once.
        texts: that each candidate is scored on, and tokens of each; ``None``: the search's validation batches.
    """
    search = recipe.search
    if search.candidates_per_trial != "auto":
        return search.candidates_per_trial
    sequences, length = texts or (search.validation_batches * search.batch_size, recipe.corpus.sequence_length)
    return candidates_per_trial(
        space,
        sequences,
        length,
        evaluations,
        window,
        search.cpus_per_actor,
        search.gpus_per_actor,
    )


def typical_flops(space: SearchSpace[Any], sequence_length: int) -> float:
    """FLOPs of a network of a space for one sequence; one drawn network stands for all."""
    return float(space.cost(space.sample(random.Random(0)), sequence_length).flops)
