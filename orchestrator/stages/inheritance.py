"""A supernet that is cut out of another run's: whether it can be, and what of that run it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.storage import sha256_of_file
from orchestrator.errors import UserError
from orchestrator.opened_run import OpenedRun, open_run
from orchestrator.stages.base import RunPlan
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.registry import load_space

_KEY = "supernet.inherit"
_OF_THE_TEACHER = ("vocab_size", "hidden_size", "num_heads", "max_positions", "type_vocab_size")
"""Sizes that tensors of both supernets have from their teacher, and what pairs their heads with its heads."""


def inherited_run(folder: str) -> OpenedRun:
    """The run that a supernet is inherited from.

    Args:
        folder: of the run, as the recipe has it.

    Raises:
        UserError: there is none, or its supernet is not trained; one line with the key.
    """
    try:
        return open_run(Path(folder))
    except UserError as error:
        raise UserError(f"{_KEY}: {error}") from None


def inherited_weights(folder: str) -> str:
    """A hash of the weights that are inherited: what a training that begins with them depends on.

    Raises:
        UserError: as :func:`inherited_run`.
    """
    return sha256_of_file(inherited_run(folder).folder.supernet_weights)


def check_inherited(plan: RunPlan, folder: str) -> None:
    """Make sure, without reading any weights, that the space's supernet can be cut out of another run's.

    Args:
        plan: of the run; its space has a layer-wise supernet.
        folder: of the other run.

    Raises:
        UserError: it cannot; one line with the key.
    """
    import torch

    name, run = plan.recipe.space.name, inherited_run(folder)
    if run.folder.path == plan.folder.path:
        raise UserError(f"{_KEY}: found {folder}, the folder of this run; expected that of another one")
    if run.recipe.space.name != name:
        raise UserError(
            f"{_KEY}: found {folder}, a run of the space '{run.recipe.space.name}', expected one of '{name}'"
        )
    _check_teacher(folder, run.space.shape, plan.shape)
    try:
        with torch.device("meta"):
            target: Any = plan.space.supernet()
            if not hasattr(target, "inherit"):
                raise UserError(
                    f"{_KEY}: found {folder}, but the supernet of '{name}' cannot be cut out of another one; "
                    f"expected null"
                )
            target.inherit(load_space(name, run.recipe.space.options, plan.shape).supernet())
    except SpaceError as error:
        raise UserError(f"{_KEY}: {folder} does not fit; {error}") from None


def _check_teacher(folder: str, theirs: EncoderShape | None, ours: EncoderShape) -> None:
    for size in _OF_THE_TEACHER:
        found, expected = getattr(theirs, size, None), getattr(ours, size)
        if found != expected:
            raise UserError(
                f"{_KEY}: found {folder}, whose teacher has {size} {found}, expected {expected} as this run's; inherit "
                f"from a run with the same teacher"
            )
