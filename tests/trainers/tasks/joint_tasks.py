"""Microscopic supernets that are tuned on two tasks at once: single texts with a class, and pairs with a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from spaces.narrowing import Narrowing
from tests.spaces.microscopic import shaken
from tests.trainers.tasks.toy_tasks import FAST, source, write_sentiment, write_similarity
from tests.trainers.teachers import save_teacher
from tests.trainers.warm_up_tasks import OPTIONS, make_layerwise_space
from trainers.optimisation import OptimiserSettings
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.joint_tuning import JointTuning, JointTuningFactory, JointTuningSettings
from trainers.tasks.losses import Imitation
from trainers.tasks.models import load_for_task, load_tokenizer, save_for_task
from trainers.tasks.slices import TrainSlices

TASKS = (find_task("sst2"), find_task("stsb"))
SLICES = TrainSlices(0.8, 0.2)
LABELS = replace(FAST, distillation_weight=0.0)
"""The labels alone are learnt."""
IMITATION = replace(
    FAST, distillation_weight=1.0, layer_weight=1.0, imitation=Imitation("soft_cross_entropy", numbers="labels")
)
"""As EfficientBERT does it, with a tuned teacher for each task."""


def make_place(folder: Path, sentiment: int = 200, similarity: int = 120) -> Path:
    """Teacher, supernet, data of both tasks, and a teacher with a head for each (not trained: nobody asks how good)."""
    save_teacher(folder / "teacher")
    write_sentiment(folder / "data", sentiment)
    write_similarity(folder / "data", similarity)
    torch.manual_seed(1)
    save_file(shaken(make_layerwise_space().supernet()).state_dict(), folder / "supernet.safetensors")
    for number, task in enumerate(TASKS):
        torch.manual_seed(number)
        model = load_for_task(str(folder / "teacher"), task)
        save_for_task(shaken(model, seed=number), load_tokenizer(str(folder / "teacher")), folder / "tuned" / task.name)
    return folder


def make_settings(tuning: FineTuningSettings = LABELS, **changes: Any) -> JointTuningSettings:
    """Settings of a tuning, its optimiser's among them."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 12}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    chosen: dict[str, Any] = {"batch_size": 16, "seed": 3, "precision": "float32", "pooler": "shared", **changes}
    return JointTuningSettings(tuning=tuning, optimiser=OptimiserSettings(**optimiser), **chosen)  # type: ignore[arg-type]


def make_factory(place: Path, settings: JointTuningSettings, **changes: Any) -> JointTuningFactory:
    """With tuned teachers, which play a part where the settings give them one."""
    factory = JointTuningFactory(
        teacher_folder=place / "teacher",
        weights=place / "supernet.safetensors",
        space_name="efficient_bert",
        space_options=OPTIONS,
        tasks=TASKS,
        source=source(place / "data"),
        settings=settings,
        slices=SLICES,
        teachers={task.name: str(place / "tuned" / task.name) for task in TASKS},
    )
    return replace(factory, **changes)


def make_tuning(
    place: Path,
    tuning: FineTuningSettings = LABELS,
    narrowing: Narrowing = Narrowing(),  # noqa: B008 - frozen
    more: Mapping[str, Any] | None = None,
    **changes: Any,
) -> JointTuning:
    """One worker's tuning.

    Args:
        place: of :func:`make_place`.
        tuning: what is learnt of labels and teachers.
        narrowing: of the space whose networks are drawn.
        more: changes of the factory.
        changes: of the settings.
    """
    factory = make_factory(place, make_settings(tuning, **changes), narrowing=narrowing, **(more or {}))
    return factory(0, 1, torch.device("cpu"))
