"""The space of a run: made for its teacher, or for the distilled student that a one-shot search starts at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.recipe import Recipe
from orchestrator.run_directory import RunDirectory
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
from spaces.space import SearchSpace


def run_space(recipe: Recipe, teacher: EncoderShape, folder: RunDirectory | None = None) -> SearchSpace[Any]:
    """The space that a recipe names.

    Args:
        recipe: of the run.
        teacher: its shape.
        folder: of the run, which remembers what a student was like that is gone.

    Raises:
        SpaceError: the space does not fit.
        TrainingInputError: there is no such student.
    """
    return load_space(recipe.space.name, recipe.space.options, space_shape(recipe, teacher, folder))


def space_shape(recipe: Recipe, teacher: EncoderShape, folder: RunDirectory | None = None) -> EncoderShape:
    """The shape that the space is made for; arguments and errors as of :func:`run_space`."""
    return shape_at(start_folder(recipe), teacher, folder)


def shape_at(start: Path | None, teacher: EncoderShape, folder: RunDirectory | None = None) -> EncoderShape:
    """The shape of what a run's supernet starts at.

    Args:
        start: the student's folder; ``None``: the teacher.
        teacher: its shape.
        folder: of the run, which remembers what a student was like that is gone.

    Raises:
        TrainingInputError: there is no such student.
    """
    if start is None:
        return teacher
    from trainers.oneshot_start import StudentStart  # which loads transformers

    remembered = None if folder is None else folder.start
    gone = not (start / "config.json").is_file()
    known = remembered if gone and remembered is not None and remembered.is_dir() else start
    return StudentStart(known).shape(teacher)


def start_folder(recipe: Recipe) -> Path | None:
    """The folder of the student that a one-shot search starts at; ``None``: it starts at the teacher."""
    start = recipe.supernet.one_shot.start
    return None if start is None else Path(start)
