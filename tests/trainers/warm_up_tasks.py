"""Microscopic warm-up distillations of EfficientBERT's supernet."""

from __future__ import annotations

from typing import Any

import torch

from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.space import EfficientBertSpace
from tests.spaces.microscopic import SHAPE, shaken
from trainers.corpus import PackedCorpus
from trainers.optimisation import OptimiserSettings
from trainers.teacher import Teacher
from trainers.warm_up import WarmUp, WarmUpSettings

OPTIONS: dict[str, Any] = {"hidden_size": 24, "layers": 2, "heads": 4, "embedding_size": 8, "dropout": 0.0}
"""Of the space: two blocks for the four layers of the microscopic teacher, and its heads."""


def make_layerwise_space(**options: Any) -> EfficientBertSpace:
    """Not held against the teacher, as a recipe's is: trainings have to tell by themselves."""
    return EfficientBertSpace(EfficientBertOptions(**{**OPTIONS, **options}, shape=SHAPE))


def make_settings(**changes: Any) -> WarmUpSettings:
    """Settings of a training, its optimiser's among them."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 8}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings: dict[str, Any] = {"init": "paper", "batch_size": 6, "seed": 3, "precision": "float32", **changes}
    return WarmUpSettings(**settings, optimiser=OptimiserSettings(**optimiser))  # type: ignore[arg-type]


def make_warm_up(
    teacher: Teacher, corpus: PackedCorpus, space: EfficientBertSpace | None = None, **changes: Any
) -> WarmUp:
    settings = make_settings(**changes)
    space = space or make_layerwise_space()
    torch.manual_seed(settings.seed)
    return WarmUp(shaken(space.supernet()), space, teacher, corpus, settings)
