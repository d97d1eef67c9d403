"""Microscopic block-wise trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import make_space
from trainers.blockwise import BlockwiseSettings, BlockwiseTraining
from trainers.corpus import PackedCorpus
from trainers.optimisation import OptimiserSettings
from trainers.population import RemovalRules
from trainers.shrinking import ShrinkingSettings
from trainers.teacher import Teacher


def make_settings(**changes: Any) -> BlockwiseSettings:
    """Settings of a training, its optimiser's among them."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 10}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings: dict[str, Any] = {
        "init": "teacher",
        "batch_size": 6,
        "paths_per_step": 1,
        "seed": 3,
        "precision": "float32",
        **changes,
    }
    return BlockwiseSettings(**settings, optimiser=OptimiserSettings(**optimiser))  # type: ignore[arg-type]


def make_training(
    teacher: Teacher,
    corpus: PackedCorpus,
    space: NasBertSpace | None = None,
    validation: PackedCorpus | None = None,
    cache_folder: Path | None = None,
    **changes: Any,
) -> BlockwiseTraining:
    settings = make_settings(**changes)
    space = space or make_space()
    torch.manual_seed(settings.seed)
    supernet = space.supernet()
    supernet.start(teacher.model, *corpus.even_batches(1, 8)[0], init=settings.init)
    return BlockwiseTraining(
        supernet, space, teacher, corpus, settings, validation=validation, cache_folder=cache_folder
    )


def shrinking_settings(**changes: Any) -> ShrinkingSettings:
    """Rounds after steps 4, 6, 8, ... of a microscopic training, those of its rules among the changes."""
    rules = {"sample": 20, "keep": 4}
    rules.update({key: changes.pop(key) for key in [*changes] if key in RemovalRules.__annotations__})
    settings: dict[str, Any] = {
        "steps_per_epoch": 2,
        "warm_epochs": 1,
        "bins": 3,
        "latency_rule": "upper",
        "sequence_length": 12,
        "validation_batches": 2,
        "batch_size": 6,
        **changes,
    }
    return ShrinkingSettings(RemovalRules(**rules), **settings)  # type: ignore[arg-type]


def gradients_of_first_step(task: BlockwiseTraining) -> dict[str, Tensor]:
    """What the optimiser is given in step 0, by name."""
    gradients: dict[str, Tensor] = {}

    def read(*_: Any) -> None:
        for name, parameter in task.supernet.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.clone()

    handle = task.optimiser.register_step_pre_hook(read)
    task.step(0)
    handle.remove()
    return gradients
