"""Microscopic warm-up distillations."""

from __future__ import annotations

from typing import Any

import torch

from tests.spaces.microscopic import SHAPE, shaken
from tests.trainers.layerwise_space import CroppedBertSpace
from trainers.corpus import PackedCorpus
from trainers.optimisation import OptimiserSettings
from trainers.teacher import Teacher
from trainers.warm_up import WarmUp, WarmUpSettings


def make_layerwise_space(**options: Any) -> CroppedBertSpace:
    return CroppedBertSpace.from_options(options, SHAPE)


def make_settings(**changes: Any) -> WarmUpSettings:
    """Settings of a training, its optimiser's among them."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 8}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings: dict[str, Any] = {"batch_size": 6, "seed": 3, "precision": "float32", **changes}
    return WarmUpSettings(**settings, optimiser=OptimiserSettings(**optimiser))  # type: ignore[arg-type]


def make_warm_up(
    teacher: Teacher, corpus: PackedCorpus, space: CroppedBertSpace | None = None, **changes: Any
) -> WarmUp:
    settings = make_settings(**changes)
    space = space or make_layerwise_space()
    torch.manual_seed(settings.seed)
    return WarmUp(shaken(space.supernet()), space, teacher, corpus, settings)
