"""What stages and commands make evaluators of a run's supernet with."""

from __future__ import annotations

from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.recipe import Recipe
from orchestrator.run_directory import RunDirectory


def evaluator_factory(
    recipe: Recipe, folder: RunDirectory, batches: int, batch_size: int, threads: int
) -> SupernetEvaluatorFactory:
    """The factory of evaluators that hold a run's supernet.

    Args:
        recipe: of the run.
        folder: of the run.
        batches: validation batches to keep in memory.
        batch_size: sequences of a batch.
        threads: for forward passes on a processor; 0 leaves PyTorch's setting.
    """
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
